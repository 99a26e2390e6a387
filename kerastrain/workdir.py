"""Every path below --workdir, how files get there, and who may write.

    workdir = Workdir("runs/mnist")
    with workdir.lock():
        write_json(workdir.run_file, {...})

Files are written beside their place, flushed to the disk, and renamed: a reader,
or a run killed at any instant, sees the old file or the new one, never a half.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerastrain.errors import ResumeError, UsageError, WorkdirError

logger = logging.getLogger(__name__)

# Temporary folders for what is only tried.
REHEARSAL = ".rehearsal-"
# Of a run that is being set aside.
PARTIAL = ".partial"


class Workdir:
    """The folder of one run."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not str(path).isascii() and str(path).encode(errors="replace").decode() != str(path):
            raise WorkdirError(f"--workdir={str(path)!a} is not UTF-8, which TensorFlow expects.")
        self._made: list[Path] = []  # The folders that this object made, the innermost first.

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def run_file(self) -> Path:
        """Recipe, options as given and as resolved, data: what this run is."""
        return self.path / "run.json"

    @property
    def executor_file(self) -> Path:
        """How steps are run, as measured at the first start."""
        return self.path / "executor.json"

    @property
    def starts_file(self) -> Path:
        """Every start of the run and how it ended."""
        return self.path / "starts.json"

    @property
    def heartbeat_file(self) -> Path:
        """Where the start that runs now is; left behind by one that was killed."""
        return self.path / "heartbeat"

    @property
    def rollbacks_file(self) -> Path:
        """Returns to an earlier checkpoint after a loss that was not finite."""
        return self.path / "rollbacks.json"

    @property
    def result_file(self) -> Path:
        """Written last, when everything else is in place: the run is finished."""
        return self.path / "result.json"

    @property
    def stopped_file(self) -> Path:
        """Why the run ended, on what numbers, and which weights were kept."""
        return self.path / "stopped.json"

    @property
    def splits_file(self) -> Path:
        """Row numbers of train, validation and test (npz of int64 arrays)."""
        return self.path / "splits.npz"

    @property
    def schema_file(self) -> Path:
        """What the columns of the table are, for runs on one."""
        return self.path / "schema.json"

    @property
    def report(self) -> Path:
        """What `evaluate` and `explain` found, for people: index.html and its parts."""
        return self.path / "report"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def latest_checkpoints(self) -> Path:
        return self.path / "checkpoints" / "latest"

    @property
    def best_checkpoints(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def exports(self) -> Path:
        """Holds NAME/VERSION/ folders, the shape that TensorFlow Serving expects."""
        return self.path / "export"

    @property
    def earlier(self) -> Path:
        """Runs that a new one followed, each a work directory of its own."""
        return self.path / "earlier"

    def create(self) -> None:
        """Makes the folder if need be, once it is found to be usable.

        Raises:
            WorkdirError: as `check`, or it cannot be made.
        """
        self.check()
        try:
            above = (self.path, *self.path.absolute().parents)
            self._made += [path for path in above if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(
                f"--workdir={self.path} cannot be made: {error.strerror}."
            ) from error

    def check(self) -> None:
        """Looks whether the folder is a run's, or empty, and writable, or can be made.

        Raises:
            WorkdirError: it is a file, holds something else, or cannot be written to.
        """
        check_folder(self.path, flag="workdir")
        if not self.path.exists():
            return
        found = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
        is_run = self.run_file.exists() or any(self.earlier.glob(f"*/{self.run_file.name}"))
        if found and not is_run and not _only_leftovers(found):
            raise WorkdirError(
                f"--workdir={self.path} holds something else than a kerastrain run "
                f"({', '.join(found[:3])}{', …' if len(found) > 3 else ''}). "
                "Nothing was changed; give an empty or a new folder."
            )

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[Workdir]:
        """A temporary work directory on the same disk; this one is looked at, but not made.

        Raises:
            WorkdirError: this one could not be used.
        """
        parent = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if parent == self.path:
            self.create()  # There is nothing to make, only to check.
        try:
            with tempfile.TemporaryDirectory(prefix=REHEARSAL, dir=parent) as place:
                yield Workdir(place)
        except OSError as error:
            raise WorkdirError(
                f"--workdir={self.path} cannot be made: {error.strerror}."
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second trainer out, until the process ends however it ends.

        Raises:
            WorkdirError: another process trains here; its pid, host and start are named.
        """
        descriptor = self._flocked(self.path / "lock")
        try:
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            text = f"pid {os.getpid()} on {socket.gethostname()}, since {started}\n"
            with contextlib.suppress(OSError):  # On a full disk nobody is told who trains.
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
            for left in self.path.glob(f"{REHEARSAL}*"):  # by a start that was killed
                shutil.rmtree(left, ignore_errors=True)
            self._finish_setting_aside()
            try:
                yield
            finally:
                self._remove_if_unused()
        finally:
            os.close(descriptor)

    def _flocked(self, file: Path) -> int:
        """The descriptor of the locked file."""
        while True:
            try:
                # flock is released by the system when the process dies, so no stale locks exist.
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # `_remove_if_unused` of another start.
                self.create()
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
                os.close(descriptor)
            except BlockingIOError:  # held by another process
                owner = os.read(descriptor, 1000).decode(errors="replace").strip()
                os.close(descriptor)
                raise WorkdirError(
                    f"Another process already trains in {self.path} ({owner or 'unknown'}). "
                    "Wait for it to end, or use another --workdir."
                ) from None
            except OSError as error:
                os.close(descriptor)
                raise WorkdirError(
                    f"--workdir={self.path} is on a file system without locks "
                    f"({error.strerror}), so a second trainer could not be kept out. "
                    "Use a --workdir on another one."
                ) from error

    def _remove_if_unused(self) -> None:
        """Takes away what this start made, when there is nothing in it."""
        if os.listdir(self.path) == ["lock"]:
            (self.path / "lock").unlink()
            with contextlib.suppress(OSError):  # Another start has just made something.
                for folder in self._made:
                    folder.rmdir()

    def set_aside(self) -> None:
        """Moves the run to a folder of its own in `earlier/`, so that a new one can begin.

        What it has published stays, and is in that folder too. Under the lock; killed meanwhile,
        it is completed by the next start.

        Raises:
            WorkdirError: files cannot be moved.
        """
        name = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(self.run_file.stat().st_mtime))
        if self.starts_file.exists():
            name = read_json(self.starts_file)["starts"][0]["began"][:19].replace(":", "-")
        while (self.earlier / name).exists():
            name += "+"
        place = self.earlier / f"{name}{PARTIAL}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            # From now on it is no longer the run of this folder.
            os.replace(self.run_file, place / self.run_file.name)
            sync(place)
        except OSError as error:
            raise WorkdirError(f"{place} cannot be written: {error.strerror}.") from error
        self._finish_setting_aside()
        logger.info("The run that was in %s is in %s now.", self, self.earlier / name)

    def _finish_setting_aside(self) -> None:
        for place in self.earlier.glob(f"*{PARTIAL}"):
            if not (place / self.run_file.name).exists():
                continue  # Killed before anything was moved.
            paths = [getattr(self, n) for n, v in vars(Workdir).items() if isinstance(v, property)]
            names = {path.relative_to(self.path).parts[0] for path in paths}
            for name in names - {self.exports.name, self.earlier.name}:
                if (self.path / name).exists():
                    os.replace(self.path / name, place / name)
            if (place / self.result_file.name).exists():
                version = read_json(place / self.result_file.name)["export"]
                shutil.rmtree(place / version, ignore_errors=True)
                if (self.path / version).exists():
                    shutil.copytree(self.path / version, place / version, copy_function=_link)
            place.rename(place.with_suffix(""))


def _link(source: str, target: str) -> None:
    """A copy that takes no space, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def refuse_differences(
    workdir: Workdir, what: str, differences: list[str], *, override: bool
) -> None:
    """For a run that is to go on otherwise than it began.

    Args:
        what: "has other options", "was trained on other data", …
        differences: one line each; none: nothing happens.
        override: only warn.

    Raises:
        ResumeError: there are differences and no `override`.
    """
    if not differences:
        return
    listed = "".join(f"\n  {line}" for line in differences)
    if not override:
        anew = (
            "Begin anew with --new_version (new_version=True; this run is kept in the folder "
            "earlier/, what it published stays)"
        )
        ways = (
            f"{anew}, use a new --workdir, or go on all the same with --override (override=True)."
        )
        if workdir.result_file.exists():  # Nothing is left to go on with.
            ways = f"{anew}, or use a new --workdir."
        raise ResumeError(f"The run in {workdir} {what}:{listed}\n{ways}")
    logger.warning("The run in %s %s:%s", workdir, what, listed)


def _only_leftovers(found: list[str]) -> bool:
    """Whether the folder holds only what a start killed before its first record leaves."""
    # Written before the record, or, how steps are run, given to a run from another.
    early = {"splits.npz", "schema.json", "heartbeat", "starts.json", "executor.json"}
    return all(
        name in early or name.startswith(REHEARSAL) or re.fullmatch(r"\..*\.partial", name)
        for name in found
    )


def check_folder(path: Path, *, flag: str) -> None:
    """Raises WorkdirError unless a folder is there, or can be made, and can be written to."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise WorkdirError(f"--{flag}={path} cannot be made: {there} is a file; expected a folder.")
    reason = _why_nothing_can_be_made(there)
    if not reason and there == path.absolute() and not os.access(there, os.R_OK):
        reason = "it cannot be read"
    if reason:
        raise WorkdirError(f"--{flag}={path}: {there} cannot be read and written to ({reason}).")


def check_file(path: Path, *, flag: str) -> None:
    """Raises UsageError unless a file can be written there, or what is there be replaced."""
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"--{flag}={path} is a folder; expected the name of a file.")
    if not folder.is_dir():
        raise UsageError(f"--{flag}={path}: there is no folder {folder}. Make it.")
    if path.exists() and not path.is_file():
        raise UsageError(f"--{flag}={path} is no ordinary file; expected the name of one.")
    is_protected = path.exists() and not os.access(path, os.W_OK)
    reason = "it is read-only" if is_protected else _why_nothing_can_be_made(folder)
    if reason:
        raise UsageError(f"--{flag}={path} cannot be written: {reason}. Give another place.")


def _why_nothing_can_be_made(folder: Path) -> str:
    """By trying it, without a trace; "" where it can. Root may write to /proc, and yet cannot."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def write_bytes(path: Path, content: bytes) -> None:
    """Puts a file in its place in one step, flushed to the disk before it is seen.

    Raises:
        WorkdirError: it cannot be written, for instance because the disk is full;
            what was in its place is unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # The first error is the one to tell.
            partial.unlink(missing_ok=True)
        raise WorkdirError(f"{path} cannot be written: {error.strerror}.") from error
    sync(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Like `write_bytes`, for a JSON object, indented for people."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def strict_json(value: Any) -> Any:
    """The same value with None for every number that is not finite: JSON has no word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: strict_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(each) for each in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object that this package wrote.

    Raises:
        WorkdirError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkdirError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise WorkdirError(f"{path} holds {type(value).__name__}; expected a JSON object.")
    return value


@contextlib.contextmanager
def without_patterns(folder: Path) -> Iterator[str]:
    """A path of the folder for libraries that take one for a pattern, or for several.

    TensorFlow would find nothing in "lr[0.1]" or "a\\b", and OpenVINO nothing in "a,b". Until
    the block ends, Linux has another name for the folder.
    """
    if not re.search(r"[\[\\,]", str(folder)) or not os.path.isdir("/proc/self/fd"):
        yield str(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flushes to the disk: a file's content, or a folder's entries (new names, renames)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
