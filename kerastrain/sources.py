"""The files that a run's data and recipe are in: noted at its first start, looked at at each.

    files = look(options, recorded)        # {"data": {"at": …, "files": [{"name", "stat", …}]}}
    differences(recorded, files)           # ["data: housing.csv has other content"]

A look is cheap and certain: a file of the same size, times and inode is the same, and any
other one is read and hashed. No TensorFlow.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerastrain.data.tables.finding import find_files
from kerastrain.errors import DataError
from kerastrain.options import LOCATIONS, TABLE_LOCATIONS, TrainOptions
from kerastrain.recipe import code_sha256, is_own, locate_recipe, modules_beside
from kerastrain.training.checkpoint_files import checksum_of

logger = logging.getLogger(__name__)

RECIPE = "recipe"
# One written a moment ago can be written again within the same tick of the file system's clock.
SETTLED_NS = 2_000_000_000
# Of more files than that only all together are noted.
MANY = 1000
# In a folder of which a recipe of the user's own may read only some, or all.
MOST_FILES, MOST_BYTES = 200_000, 16 << 30
LARGE = 1 << 30

Files = Mapping[str, Mapping[str, Any]]


def look(options: TrainOptions, recorded: Files) -> dict[str, Any]:
    """Every file of these options as it is now.

    Args:
        recorded: what a look found before; what has not changed since is not read again.

    Raises:
        DataError: a file cannot be read.
    """
    found = {}
    for role, at in _locations(options):
        known = {entry["name"]: entry for entry in recorded.get(role, {}).get("files", ())}
        try:
            named = _named(role, at, options, known)
            entries = [_entry(name, files, known.get(name)) for name, files in named]
        except OSError as error:
            where = error.filename or at
            raise DataError(f"'{where}' cannot be read: {error.strerror}.") from error
        if entries:
            found[role] = {"at": os.path.abspath(at), "files": entries}
    return found


def look_again(options: TrainOptions, files: Files) -> dict[str, Any]:
    """The same after they were read, with the modules that the recipe has imported by now.

    Raises:
        DataError: one of them was changed meanwhile.
    """
    again = look(options, files)
    if changed := differences(files, again):
        raise DataError(f"{changed[0]} since this start read it. Run the command again.")
    return again


def differences(recorded: Files, now: Files) -> list[str]:
    """Lines "data: housing.csv has other content".

    Another schema file may say the same; what the data become by it decides then.
    """
    return [
        f"{role}: {line}"
        for role, one in recorded.items()
        if role in now and (role != "schema" or one["at"] == now[role]["at"])
        for line in _changes(role, one, now[role])
    ]


def has_same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the files are the same in the same order, whatever they are called."""
    return [e["sha256"] for e in one["files"]] == [e["sha256"] for e in other["files"]]


def _changes(role: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if has_same_content(before, now):
        return []
    old, new = ({entry["name"]: entry for entry in one["files"]} for one in (before, now))
    lines = [f"{name} is gone" for name in old if name not in new]
    both = [name for name in old if name in new]
    lines += [f"{n} has other content" for n in both if not _is_same(old[n], new[n])]
    if role == RECIPE:  # A further module can only be imported by one that has changed, too.
        return lines
    return lines + [f"{name} is new" for name in new if name not in old] or ["in another order"]


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    code = one.get("code_sha256")
    same_code = code is not None and code == other.get("code_sha256")
    return bool(one["sha256"] == other["sha256"] or same_code)


def _locations(options: TrainOptions) -> Iterator[tuple[str, str]]:
    """What the options name, ("data", "housing.csv")."""
    given = [(name, getattr(options, name)) for name in LOCATIONS]
    given += [(name, getattr(options.table, name)) for name in TABLE_LOCATIONS]
    yield from ((name, os.path.expanduser(at)) for name, at in given if at is not None)
    if is_own(options.recipe):
        yield RECIPE, str(locate_recipe(options.recipe))


def _named(
    role: str, at: str, options: TrainOptions, known: Iterable[str]
) -> list[tuple[str, list[Path]]]:
    """The files there, in the order in which they are read, with their names."""
    place = Path(os.path.abspath(at))
    if role == RECIPE:
        beside = {*(name for name in known if name != place.name), *modules_beside(place)}
        paths = [place, *(place.parent / name for name in sorted(beside))]
        return [(str(p.relative_to(place.parent)), [p]) for p in paths if p.is_file()]
    if place.is_dir() and is_own(options.recipe) and role in LOCATIONS:
        files = _files_below(place, apart_from=Path(os.path.abspath(options.workdir)))
        if len(files) == MOST_FILES or sum(p.stat().st_size for p in files) > MOST_BYTES:
            logger.warning("'%s' holds too much for its files to be compared at each start.", at)
            return []
    elif place.is_dir() and role == "data_dir":
        files = sorted(p for p in place.iterdir() if p.suffix == ".npz" or "-ubyte" in p.name)
    elif place.exists() or glob.glob(at, recursive=True):
        files = find_files(str(place) if place.is_dir() else at)
    else:
        return []  # A name that means something to the recipe; or missing, as loading will say.
    if len(files) > MANY:
        return [("a file among them", files)]
    return [(str(p.relative_to(place)) if place.is_dir() else p.name, [p]) for p in files]


def _files_below(folder: Path, *, apart_from: Path) -> list[Path]:
    """At most MOST_FILES; no hidden ones, and none in hidden folders."""
    found = (
        p
        for p in folder.rglob("*")
        if not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and apart_from not in p.parents
        and p.is_file()
    )
    return sorted(itertools.islice(found, MOST_FILES))


def _entry(name: str, files: Sequence[Path], known: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """{"name", "stat", "sha256"}; "stat" is None where it does not say enough."""
    stats = [file.stat() for file in files]
    stat = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in stats]
    if known is not None and known["stat"] == stat:
        return known
    is_settled = max(map(max, (each[1:3] for each in stat))) < time.time_ns() - SETTLED_NS
    if (total := sum(s.st_size for s in stats)) > LARGE:
        logger.info("Reading %s once, to know it again (%.1f GB).", name, total / 1e9)
    sums = [checksum_of(file) for file in files]
    whole = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    entry = {"name": name, "stat": stat if is_settled else None, "sha256": whole}
    if files[0].suffix == ".py":
        entry["code_sha256"] = code_sha256(files[0])
    return entry
