"""The versions in a folder that servers read: what each is, and what was deployed when.

    for version in list_versions(base): version.number, version.damage, version.metrics
    deployments(versions)          # [1, 4]: 4 is deployed, a rollback leads to 1
    rollback_target(versions)

The highest number is deployed. What was deployed before is a stack that is read off the
manifests, oldest version first:

    a new version, or `promote`    is put on top
    `rollback` to v                takes away what lies above v

so one rollback goes to what was deployed before, and a second one further back. After
publishing 1, 2, 3, a rollback makes 4 of 2, another makes 5 of 1; after publishing 6 a
rollback makes 7 of 1. (`promote` is the way to a version that a rollback has left behind.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerastrain.errors import KerastrainError
from kerastrain.export import manifest
from kerastrain.workdir import read_json

PROMOTE, ROLLBACK = "promote", "rollback"


@dataclass(frozen=True)
class Version:
    """A version folder.

    Attributes:
        content: its manifest; empty when that cannot be read.
        damage: what is wrong with it; None for an intact one.
        bytes: of its files. Copies share theirs with the version they were made of.
        is_deployed: the newest, which servers serve.
    """

    number: int
    folder: Path
    content: Mapping[str, Any] = field(repr=False)
    damage: str | None
    bytes: int
    is_deployed: bool

    @property
    def copy_of(self) -> int | None:
        """The version that it is a copy of, made by `promote` or `rollback`."""
        return self.content.get("copy_of")

    @property
    def reason(self) -> str | None:
        return self.content.get("reason")

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the test split, as measured when it was first published."""
        return self.content.get("metrics") or {}

    @property
    def digest(self) -> str | None:
        return self.content.get("digest")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        named = ("created", "step", "metrics", "intervals", "digest", "copy_of", "reason")
        return {
            "version": self.number,
            "folder": str(self.folder),
            **{name: self.content.get(name) for name in named},
            "bytes": self.bytes,
            "damage": self.damage,
            "deployed": self.is_deployed,
        }


def list_versions(base: Path, *, verify: bool = True) -> list[Version]:
    """All versions, oldest first.

    Args:
        verify: compare every file with its digest, which reads all of them.
    """
    numbers = manifest.versions(base)
    found = []
    for number in numbers:
        folder = base / str(number)
        content, damage = look_at(folder, verify=verify)
        size = _bytes(folder)
        if folder.is_dir():  # and was not removed by another process meanwhile
            found.append(Version(number, folder, content, damage, size, number == numbers[-1]))
    return found


def look_at(folder: Path, *, verify: bool) -> tuple[dict[str, Any], str | None]:
    """The manifest, and what is wrong with the version."""
    try:
        content = read_json(folder / manifest.NAME)
    except KerastrainError as error:
        return {}, str(error)
    if not content.get("files"):
        return content, f"{folder / manifest.NAME} lists no files; nothing can be compared with it."
    try:
        if verify:
            manifest.read_manifest(folder)
    except (KerastrainError, OSError) as error:
        return content, str(error)
    return content, None


def _bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:
        return 0


def deployments(versions: Sequence[Version]) -> list[int]:
    """The stack: the versions to which rollbacks lead, one after the other, and the deployed one.

    Args:
        versions: oldest first. Those that were removed are simply not there: the numbers
            tell what lies above what.
    """
    stack: list[int] = []
    for version in versions:
        if version.reason != ROLLBACK or version.copy_of is None:
            stack.append(version.number)
            continue
        while stack and stack[-1] > version.copy_of:
            stack.pop()
        if stack[-1:] != [version.copy_of]:  # It was removed; this copy stands for it.
            stack.append(version.copy_of)
    return stack


def rollback_target(versions: Sequence[Version]) -> tuple[int, Version] | None:
    """What a rollback would deploy: its number when it was deployed, and where it lies now.

    None when nothing that was deployed before is still there.
    """
    if not versions:
        return None
    for number in reversed(deployments(versions)[:-1]):
        version = _that_holds(number, versions)
        # Where those between two copies were removed, the one below may be the same model.
        if version.digest is None or version.digest != versions[-1].digest:
            return number, version
    return None


def _that_holds(number: int, versions: Sequence[Version]) -> Version:
    """The version, or where it was removed a copy that a rollback has made of it."""
    for version in versions:
        if version.number == number:
            return version
    return next(v for v in versions if v.reason == ROLLBACK and v.copy_of == number)
