"""The files of checkpoints: which there are, whether they are intact, which are to go.

    files = CheckpointFiles(workdir.latest_checkpoints)
    files.records()             # [Record(step=500, epoch=1.2, …), …], oldest first
    files.damage(500)           # None, or what is wrong with it
    files.pin(500)

A checkpoint is the files that `tf.train.Checkpoint` wrote (ckpt-500.index,
ckpt-500.data-*) and a record beside them, ckpt-500.json, written last and by one
rename: the record is the commit. It holds a checksum of every file, of those in
other folders too that the state refers to (the best weights), and of itself. What has
no record is the leftover of a killed save. TensorFlow is not needed to look at them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastrain.errors import CheckpointError
from kerastrain.workdir import read_json, write_bytes, write_json

logger = logging.getLogger(__name__)

PREFIX = "ckpt"


@dataclass(frozen=True)
class Record:
    """What is known of one checkpoint without reading its variables.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training examples, fractional; 0 where it is not recorded.
        seconds: training and evaluating until then, over all starts of the run.
        objective: its value, when the checkpoint was saved at an evaluation.
        rollbacks: how many returns to an earlier checkpoint it knows of.
        bytes: size of its files.
        written: when it was committed, seconds since 1970.
        pinned: it is kept until it is unpinned.
        best_step: of the best weights that the state refers to; None: there are none yet.
    """

    step: int
    epoch: float = 0.0
    seconds: float = 0.0
    objective: float | None = None
    rollbacks: int = 0
    bytes: int = 0
    written: float = 0.0
    pinned: bool = False
    best_step: int | None = None


class CheckpointFiles:
    """The checkpoints in one folder, numbered by step.

    Reading and pinning is for everyone; what removes or moves checkpoints is only for
    the process that holds the work directory's lock.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def quarantine(self) -> Path:
        """Where damaged checkpoints are put, each with its reason."""
        return self.folder / "quarantine"

    @property
    def set_aside(self) -> Path:
        """Where checkpoints lie that are newer than one gone back to."""
        return self.folder / "set_aside"

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, oldest first, intact or not."""
        return sorted(
            int(path.stem.partition("-")[2])
            for path in self.folder.glob(f"{PREFIX}-*.json")
            if path.stem.partition("-")[2].isdigit()
        )

    def records(self) -> list[Record]:
        """A record of every committed checkpoint, oldest first, intact or not."""
        found = (self.record(step) for step in self.steps())
        return [record for record in found if record is not None]

    def record(self, step: int) -> Record | None:
        """The record of one checkpoint; None when it is gone.

        One that is damaged has what can still be known of it.
        """
        path = self.record_file(step)
        try:
            written = path.stat().st_mtime
            size = sum(file.stat().st_size for file in [path, *self.data_files(step)])
        except FileNotFoundError:
            return None
        facts = _readable(path)
        return Record(
            step,
            epoch=_number(facts.get("epoch")) or 0.0,
            seconds=_number(facts.get("seconds")) or 0.0,
            objective=_number(facts.get("objective")),
            rollbacks=int(_number(facts.get("rollbacks")) or 0),
            bytes=size,
            written=written,
            pinned=self._pin_file(step).exists(),
            best_step=max(_steps_of(facts.get("needs", {})), default=None),
        )

    def checksums(self, step: int) -> dict[str, str]:
        """{file name: checksum} of a checkpoint, as its record says.

        Raises:
            WorkdirError: the record cannot be read.
        """
        return read_json(self.record_file(step))["files"]

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files, or None when every checksum fits."""
        try:
            record = read_json(self.record_file(step))
            if record.pop("checksum", None) != _checksum_of_json(record):
                return "its record is not as it was written"
            expected = {**record["files"], **record.get("needs", {})}
            for name, checksum in expected.items():
                if not (self.folder / name).is_file():
                    return f"{name} is missing"
                found = checksum_of(self.folder / name)
                if found != checksum:
                    return f"{name} has {found}, recorded was {checksum}"
        except Exception as error:  # Damage can make a record unreadable in any way.
            if isinstance(error.__cause__ or error, PermissionError):
                raise  # Another user's: what may not be read is not damaged.
            return f"its record cannot be read ({error})"
        return None if record["files"] else "its record names no files"

    def needed_elsewhere(self) -> set[str]:
        """Files in other folders that checkpoints here refer to, those set aside too."""
        records = [*self.folder.glob(f"{PREFIX}-*.json"), *self.set_aside.glob("*/*.json")]
        return {name for path in records for name in _readable(path).get("needs", {})}

    def steps_needed(self) -> set[int]:
        """Steps of the checkpoints in other folders that those here refer to."""
        return _steps_of(self.needed_elsewhere())

    @property
    def had_commits(self) -> bool:
        """Whether a checkpoint was ever committed here."""
        return self._begun_file.exists()

    def note_first_commit(self) -> None:
        """From now on, a folder without checkpoints is not a new one."""
        if not self._begun_file.exists():
            write_bytes(self._begun_file, b"There was a checkpoint.\n")

    def commit(
        self, step: int, facts: Mapping[str, Any], *, needs: Mapping[str, str] | None = None
    ) -> None:
        """Writes the record of files that are on the disk: from now on the checkpoint is there.

        Args:
            facts: fields of `Record`, and whatever else is to be known of it.
            needs: {relative path: checksum} of files elsewhere that the state refers to.
        """
        checksums = {file.name: checksum_of(file) for file in self.data_files(step)}
        content = {"step": step, **facts, "files": checksums, "needs": dict(needs or {})}
        checksum = _checksum_of_json(content)
        write_json(self.record_file(step), {**content, "checksum": checksum})

    def require(self, step: int) -> None:
        """
        Raises:
            CheckpointError: there is no such checkpoint; those there are are named.
        """
        if step not in self.steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(
                f"There is no checkpoint of step {step} in {self.folder}; those there are: {there}."
            )

    def discard(self, step: int) -> None:
        """Removes a checkpoint, its record first, so that it is never half there."""
        self.discard_files(step)
        self._pin_file(step).unlink(missing_ok=True)

    def discard_files(self, step: int) -> None:
        """Makes room for another checkpoint of the same step, which is then pinned as this was."""
        self.record_file(step).unlink(missing_ok=True)
        for file in self.data_files(step):
            file.unlink()

    def discard_all_but(self, wanted: Callable[[Sequence[Record]], set[int]]) -> list[int]:
        """Removes what is not wanted; returns the steps removed."""
        with self._no_pinning():
            kept = wanted(self.records())
            gone = [step for step in self.steps() if step not in kept]
            for step in gone:
                self.discard(step)
        return gone

    def pin(self, step: int) -> None:
        """Keeps a checkpoint until it is unpinned; also while the run trains.

        Raises:
            CheckpointError: there is no such checkpoint.
        """
        with self._no_pinning():
            self.require(step)
            self._pin_file(step).touch()

    def unpin(self, step: int) -> None:
        """Leaves a checkpoint to the retention policy again.

        Raises:
            CheckpointError: there is no such checkpoint, or it is not pinned.
        """
        with self._no_pinning():
            self.require(step)
            if not self._pin_file(step).exists():
                raise CheckpointError(
                    f"The checkpoint of step {step} is not pinned; nothing was changed."
                )
            self._pin_file(step).unlink()

    def put_in_quarantine(self, step: int, reason: str) -> None:
        """Moves a damaged checkpoint out of the way, with the reason."""
        place = self.quarantine / f"{PREFIX}-{step}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "reason.txt").write_text(reason + "\n")
        self._move(step, place)
        logger.warning(
            "The checkpoint of step %d is damaged (%s); moved to %s.", step, reason, place
        )

    def quarantined(self) -> list[str]:
        """Names of the checkpoints that lie in quarantine."""
        return sorted(path.name for path in self.quarantine.glob(f"{PREFIX}-*"))

    def go_back_to(self, step: int) -> list[int]:
        """Sets every newer checkpoint aside, or fetches this one back if it lies there.

        Returns:
            The steps set aside.

        Raises:
            CheckpointError: there is no such checkpoint, or it is damaged.
        """
        aside = self.set_aside / f"{PREFIX}-{step}"
        is_aside = step not in self.steps() and aside.is_dir()
        if is_aside:
            self._fetch(aside)
        self.require(step)
        reason = self.damage(step)
        if reason is not None:
            if is_aside:
                self._put_aside(step)
            raise CheckpointError(f"The checkpoint of step {step} is damaged: {reason}.")
        newer = [other for other in self.steps() if other > step]
        for other in reversed(newer):
            self._put_aside(other)
        return newer

    def put_aside(self, steps: Iterable[int]) -> None:
        """Sets checkpoints aside that lie in a future that was given up."""
        for step in sorted(steps, reverse=True):
            self._put_aside(step)

    def steps_set_aside(self) -> list[int]:
        names = (re.fullmatch(rf"{PREFIX}-(\d+)", p.name) for p in self.set_aside.glob("*"))
        return sorted(int(match[1]) for match in names if match)

    def remove_leftovers(self) -> None:
        """Removes files of saves that were killed before their commit."""
        committed = {f"{PREFIX}-{step}" for step in self.steps()}
        # Ours, and those of TensorFlow's state file.
        partial = [*self.folder.glob(f".{PREFIX}-*.partial"), *self.folder.glob("checkpoint.tmp*")]
        for path in [*self.folder.glob(f"{PREFIX}-*"), *partial]:
            # ckpt-7.index, ckpt-7.data-00000-of-00001, ckpt-7_temp/, ckpt-7.index.tempstate…
            if path in partial or path.name.partition(".")[0].partition("_")[0] not in committed:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def data_files(self, step: int) -> list[Path]:
        """The files that TensorFlow wrote."""
        return [
            *sorted(self.folder.glob(f"{PREFIX}-{step}.data-*")),
            *self.folder.glob(f"{PREFIX}-{step}.index"),
        ]

    def record_file(self, step: int) -> Path:
        return self.folder / f"{PREFIX}-{step}.json"

    @property
    def _begun_file(self) -> Path:
        return self.folder / "begun"

    def _pin_file(self, step: int) -> Path:
        return self.folder / f"{PREFIX}-{step}.pinned"

    def _move(self, step: int, place: Path) -> None:
        # The record goes last: until then the checkpoint is still known, and is damaged.
        for file in [*self.data_files(step), self._pin_file(step), self.record_file(step)]:
            if file.exists():
                shutil.move(str(file), str(place / file.name))

    def _put_aside(self, step: int) -> None:
        place = self.set_aside / f"{PREFIX}-{step}"
        # One without its record is this one, whose move was broken off: the move goes on.
        if (place / self.record_file(step).name).exists():
            # Of an earlier going back; nothing that was set aside is lost.
            earlier = len(list(self.set_aside.glob(f"{place.name}-earlier-*")))
            place.rename(self.set_aside / f"{place.name}-earlier-{earlier + 1}")
        place.mkdir(parents=True, exist_ok=True)
        self._move(step, place)

    def _fetch(self, place: Path) -> None:
        # The record goes last, as at a save; until it is there, all lies where it lay.
        for file in sorted(place.iterdir(), key=lambda file: file.suffix == ".json"):
            copy = self.folder / f".{file.name}.partial"
            shutil.copy2(file, copy)
            os.replace(copy, self.folder / file.name)
        shutil.rmtree(place)

    @contextlib.contextmanager
    def _no_pinning(self) -> Iterator[None]:
        """So that a checkpoint is not pinned by one process while another removes it."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def size_text(size: float) -> str:
    """ "1.2 MB" """
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"


def checksum_of(file: Path) -> str:
    """ "sha256:…" of a file's bytes."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _checksum_of_json(content: Mapping[str, Any]) -> str:
    # Its members in their order: that is the same before it is written and after it is read.
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"


def _readable(path: Path) -> Mapping[str, Any]:
    """A record's content, or nothing when it is damaged: `damage` says so, and why."""
    try:
        return read_json(path)
    except Exception:
        logger.debug("%s cannot be read", path, exc_info=True)
        return {}


def _steps_of(names: Iterable[str]) -> set[int]:
    matches = (re.search(rf"{PREFIX}-(\d+)\.index$", name) for name in names)
    return {int(match[1]) for match in matches if match}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
