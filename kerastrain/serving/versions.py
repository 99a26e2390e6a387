"""Which versions a base folder holds, and which of them a policy wants served.

    found = found_versions(Path("exports/digits"))        # {1: …/1, 3: …/3}
    LATEST.wanted(found)                                   # {3}
    parse_policy("specific:1,3").wanted(found)             # {1, 3}

As in TensorFlow Serving, a version is a folder whose name is an integer; leading zeros
are allowed, everything else in the base is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kerastrain.errors import UsageError

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"

_MAX_VERSION = 2**63 - 1  # int64 in the protocols


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of one version; `state` is one of the five above."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions are served.

    Attributes:
        latest: the newest so many; None: no matter how new.
        specific: only these; empty: no matter which.
    """

    latest: int | None = 1
    specific: frozenset[int] = frozenset()

    def wanted(self, found: Iterable[int]) -> set[int]:
        """Those of the versions found that are to be served."""
        if self.specific:
            return set(found) & self.specific
        newest_first = sorted(found, reverse=True)
        return set(newest_first[: self.latest])


LATEST = VersionPolicy()


def parse_policy(text: str) -> VersionPolicy:
    """`latest`, `latest:N`, `all`, or `specific:N[,N…]`.

    Raises:
        UsageError: it is none of these.
    """
    kind, _, numbers = text.partition(":")
    values = [part.strip() for part in numbers.split(",")] if numbers else []
    if all(value.isascii() and value.isdecimal() for value in values):
        versions = [int(value) for value in values]
        if kind == "all" and not versions:
            return VersionPolicy(latest=None)
        if kind == "latest" and (not versions or (len(versions) == 1 and versions[0] > 0)):
            return VersionPolicy(latest=versions[0] if versions else 1)
        if kind == "specific" and versions:
            return VersionPolicy(latest=None, specific=frozenset(versions))
    raise UsageError(
        f"--version_policy={text}; expected latest, latest:N (the N newest), all, or "
        "specific:N,N,… (versions by number)."
    )


def found_versions(base: Path) -> dict[int, Path]:
    """The folders of BASE that are versions, by number.

    Raises:
        OSError: the base cannot be read.
    """
    found: dict[int, Path] = {}
    with os.scandir(base) as entries:
        names = sorted(entry.name for entry in entries if _is_number(entry.name) and entry.is_dir())
    for name in names:
        # Of "007" and "7" the one without zeros, which comes last.
        found[int(name)] = base / name
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 40 and int(name) <= _MAX_VERSION
