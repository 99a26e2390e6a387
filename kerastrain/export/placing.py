"""How versions get into a folder that servers poll, and out of it: whole or not at all.

    remove_leftovers(base)
    with pending_folder(base) as pending:
        …                                               # make PENDING/model, check it
        version = move_into_place(pending / "model", base)
    take_away(base, 3)

A server that polls BASE passes over every name that is no integer. So a version is made
in BASE/.pending-*, flushed to the disk, and renamed to its number; and one that goes is
renamed to .removed-* before the first of its files is deleted. A process that is killed
leaves such a folder behind, locked by nobody, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerastrain.export import manifest
from kerastrain.workdir import sync

logger = logging.getLogger(__name__)

PENDING, REMOVED = ".pending-", ".removed-"


@contextlib.contextmanager
def pending_folder(base: Path) -> Iterator[Path]:
    """A new folder in BASE, locked while this process works in it, gone afterwards."""
    with _locked_folder(base, PENDING) as pending:
        yield pending


@contextlib.contextmanager
def _locked_folder(base: Path, prefix: str) -> Iterator[Path]:
    folder, descriptor = _make_locked(base, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_locked(base: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)
        # Another process took it for a leftover before it was locked: once more.


@contextlib.contextmanager
def changing(base: Path) -> Iterator[None]:
    """Waits until no other process decides here which version is to be the newest, or goes."""
    descriptor = os.open(base, os.O_RDONLY)
    try:
        # The system lets go of it when the process dies.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(base: Path) -> None:
    """Removes what killed processes left in BASE; one that still runs holds its lock."""
    for folder in [*base.glob(f"{PENDING}*"), *base.glob(f"{REMOVED}*")]:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process has just removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            logger.debug("%s belongs to a process that is still running", folder)
        finally:
            os.close(descriptor)


def move_into_place(folder: Path, base: Path) -> int:
    """Flushes the folder to the disk and renames it to the next free version; its number."""
    _open_as_usual(folder)
    sync_tree(folder)
    while True:
        version = max(manifest.versions(base), default=0) + 1
        try:
            os.rename(folder, base / str(version))
        except OSError:
            # Someone else took the number in between: a rename never replaces a filled folder.
            if not (base / str(version)).exists():
                raise
            continue
        sync(base)
        return version


def _open_as_usual(folder: Path) -> None:
    """Gives the folders the mode that the umask says: TensorFlow has one of its own for them."""
    new = folder.with_name("new")
    new.mkdir()
    mode = stat.S_IMODE(new.stat().st_mode)  # With the set-group-id bit, where that is inherited.
    new.rmdir()
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(mode)


def closed_to_others(version: Path) -> Path | None:
    """The first folder on the way to a version, or file in it, that other users cannot read."""
    base = version.absolute().parent
    for folder in reversed(base.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    for path in (base, version, *version.rglob("*")):
        needed = 0o005 if path.is_dir() else 0o004
        if path.stat().st_mode & needed != needed:
            return path
    return None


def sync_tree(folder: Path) -> None:
    """Flushes every file and folder to the disk, so that the rename never shows half a version."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def take_away(base: Path, version: int) -> bool:
    """Removes a version, as a whole to everyone who looks; False when it was gone already."""
    with _locked_folder(base, REMOVED) as aside:
        try:
            os.rename(base / str(version), aside / str(version))
        except FileNotFoundError:
            return False
        sync(base)
        return True
