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

from kerastrain.errors import ResumeError, WorkdirError

logger = logging.getLogger(__name__)

# Temporary folders for what is only tried.
REHEARSAL = ".rehearsal-"


class Workdir:
    """The folder of one run."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not str(path).isascii() and str(path).encode(errors="replace").decode() != str(path):
            raise WorkdirError(f"--workdir={str(path)!a} is not UTF-8, which TensorFlow expects.")

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

    def create(self) -> None:
        """Makes the folder if need be and checks that it is a run's, or empty, and writable.

        Raises:
            WorkdirError: it is a file, holds something else, or cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            file = next(p for p in (self.path, *self.path.parents) if p.exists())
            raise WorkdirError(
                f"--workdir={self.path} cannot be made: {file} is a file; expected a folder."
            ) from None
        except OSError as error:
            raise WorkdirError(
                f"--workdir={self.path} cannot be made: {error.strerror}."
            ) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise WorkdirError(f"--workdir={self.path} cannot be read and written to.")
        found = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
        if found and not self.run_file.exists() and not _only_leftovers(found):
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
        # flock is released by the system when the process dies, so no stale locks exist.
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # held by another process
                owner = os.read(descriptor, 1000).decode(errors="replace").strip()
                raise WorkdirError(
                    f"Another process already trains in {self.path} ({owner or 'unknown'}). "
                    "Wait for it to end, or use another --workdir."
                ) from None
            except OSError as error:
                raise WorkdirError(
                    f"--workdir={self.path} is on a file system without locks "
                    f"({error.strerror}), so a second trainer could not be kept out. "
                    "Use a --workdir on another one."
                ) from error
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            text = f"pid {os.getpid()} on {socket.gethostname()}, since {started}\n"
            with contextlib.suppress(OSError):  # On a full disk nobody is told who trains.
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
            for left in self.path.glob(f"{REHEARSAL}*"):  # by a start that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            os.close(descriptor)


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
        raise ResumeError(
            f"The run in {workdir} {what}:{listed}\n"
            "Use a new --workdir, or go on all the same with --override."
        )
    logger.warning("The run in %s %s:%s", workdir, what, listed)


def _only_leftovers(found: list[str]) -> bool:
    """Whether the folder holds only what a start killed before its first record leaves."""
    # Written before the record, or, how steps are run, given to a run from another.
    early = {"splits.npz", "schema.json", "heartbeat", "starts.json", "executor.json"}
    return all(
        name in early or name.startswith(REHEARSAL) or re.fullmatch(r"\..*\.partial", name)
        for name in found
    )


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
