"""Checkpoints that cannot lie: one commit, checksums, a strict match, a way back.

    checkpoints = CheckpointFolder(folder, checkpoint, describe=state.describe, keep=3)
    checkpoints.save(step)                  # on the disk when it returns
    step = checkpoints.restore_newest()     # the newest intact one; None when there is none

`tf.train.CheckpointManager` writes the variables; a record beside them,
`ckpt-STEP.json`, written last and by one rename, is the commit: it holds a checksum
of every file and the shape of every variable. What has no record is the leftover
of a killed save. TensorFlow's own `checkpoint` state file is not relied on: it
changes before the data are known to be on the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerastrain.errors import CheckpointError
from kerastrain.workdir import read_json, sync_folder, write_json

logger = logging.getLogger(__name__)

PREFIX = "ckpt"
# Of a run's states: the newest, and what to fall back on if it is damaged.
KEEP_CHECKPOINTS = 3


class CheckpointFolder:
    """The checkpoints of one `tf.train.Checkpoint` in one folder, numbered by step.

    Only the process that holds the work directory's lock may use one.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: tf.train.Checkpoint,
        *,
        describe: Callable[[], list[list[Any]]],
        keep: int,
    ):
        """
        Args:
            folder: made if it is not there.
            checkpoint: what is saved and restored; all variables exist already.
            describe: [..., path, shape, dtype] of every variable, in the order of saving.
            keep: how many of the newest stay, at least 1; older ones go after each commit.
        """
        self.folder = folder
        self._checkpoint = checkpoint
        self._describe = describe
        self._keep = keep
        self._manager: tf.train.CheckpointManager | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def quarantine(self) -> Path:
        """Where damaged checkpoints are put, each with its reason."""
        return self.folder / "quarantine"

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, oldest first, intact or not."""
        return sorted(
            int(path.stem.partition("-")[2])
            for path in self.folder.glob(f"{PREFIX}-*.json")
            if path.stem.partition("-")[2].isdigit()
        )

    def save(self, step: int) -> None:
        """Saves under the number `step`; flushed to the disk and committed on return.

        Raises:
            CheckpointError: the disk is full, or the folder cannot be written to. The
                checkpoints committed before are untouched.
        """
        self.discard(step)
        try:
            self._ready_manager().save(checkpoint_number=step, check_interval=False)
            files = self._data_files(step)
            for file in files:
                _sync_file(file)
            sync_folder(self.folder)
            write_json(
                self._record(step),
                {
                    "step": step,
                    "files": {file.name: _checksum(file) for file in files},
                    "variables": self._describe(),
                },
            )
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self.folder}: {error}"
            ) from error
        # The new one stays whatever its number: a program may begin to count anew.
        others = [other for other in self.steps() if other != step]
        for old in others[: max(0, len(others) - (self._keep - 1))]:
            self.discard(old)

    def restore_newest(self) -> int | None:
        """Restores the newest intact checkpoint and returns its step; None if there never was one.

        A damaged one is moved to `quarantine/` with the reason, and the user is told.

        Raises:
            CheckpointError: there were checkpoints and none is intact, or the newest
                intact one belongs to another model (the differences are listed).
        """
        self._remove_leftovers()
        steps = self.steps()
        for step in reversed(steps):
            reason = self.damage(step)
            if reason is None:
                self._restore(step)
                self._report_fallback(step, newest=steps[-1])
                return step
            self._quarantine(step, reason)
        quarantined = sorted(path.name for path in self.quarantine.glob(f"{PREFIX}-*"))
        if quarantined:
            # Also when it is started once more: never from zero without being told to.
            raise CheckpointError(
                f"None of the checkpoints in {self.folder} is intact; {', '.join(quarantined)} lie "
                f"in {self.quarantine} with the reasons. Nothing was trained. To start from the "
                "beginning, use a new --workdir."
            )
        return None

    def restore(self, step: int) -> None:
        """Restores one checkpoint.

        Raises:
            CheckpointError: it is not there, is damaged, or belongs to another model.
        """
        reason = self.damage(step)
        if reason is not None:
            raise CheckpointError(
                f"The checkpoint of step {step} in {self.folder} cannot be used: {reason}."
            )
        self._restore(step)

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files, or None when every checksum fits."""
        try:
            recorded = read_json(self._record(step))["files"]
            for name, checksum in recorded.items():
                if not (self.folder / name).is_file():
                    return f"{name} is missing"
                found = _checksum(self.folder / name)
                if found != checksum:
                    return f"{name} has {found}, recorded was {checksum}"
        except Exception as error:  # Damage can make a record unreadable in any way.
            return f"its record cannot be read ({error})"
        return None if recorded else "its record names no files"

    def discard(self, step: int) -> None:
        """Removes a checkpoint, its record first, so that it is never half there."""
        self._record(step).unlink(missing_ok=True)
        for file in self._data_files(step):
            file.unlink()

    def discard_after(self, step: int) -> None:
        """Removes checkpoints newer than `step`: of a future that a resumed run repeats."""
        for later in [s for s in self.steps() if s > step]:
            self.discard(later)

    def _ready_manager(self) -> tf.train.CheckpointManager:
        """The manager, made at the first save: its state file begins anew with this start."""
        if self._manager is None:
            # A killed run can leave the state file empty, and it names what is long gone.
            (self.folder / "checkpoint").unlink(missing_ok=True)
            self._manager = tf.train.CheckpointManager(
                self._checkpoint,
                str(self.folder),
                # It would rotate before the new one is committed; `save` does it after.
                max_to_keep=None,
                checkpoint_name=PREFIX,
            )
        return self._manager

    def _restore(self, step: int) -> None:
        recorded = read_json(self._record(step))["variables"]
        differences = _differences(recorded, self._describe())
        if differences:
            raise CheckpointError(
                f"The checkpoint of step {step} in {self.folder} belongs to another model:\n  "
                + "\n  ".join(differences)
            )
        status = self._checkpoint.restore(str(self.folder / f"{PREFIX}-{step}"))
        status.assert_consumed()

    def _report_fallback(self, step: int, *, newest: int) -> None:
        if step != newest:
            logger.warning(
                "The newest checkpoint was damaged; going on from step %d instead of %d.",
                step,
                newest,
            )

    def _quarantine(self, step: int, reason: str) -> None:
        place = self.quarantine / f"{PREFIX}-{step}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "reason.txt").write_text(reason + "\n")
        # The record goes last: until then the checkpoint is still known, and still damaged.
        for file in [*self._data_files(step), self._record(step)]:
            if file.exists():
                shutil.move(str(file), str(place / file.name))
        logger.warning(
            "The checkpoint of step %d is damaged (%s); moved to %s.", step, reason, place
        )

    def _remove_leftovers(self) -> None:
        """Removes files of saves that were killed before their commit."""
        committed = {f"{PREFIX}-{step}" for step in self.steps()}
        for path in self.folder.glob(f"{PREFIX}-*"):
            # ckpt-7.index, ckpt-7.data-00000-of-00001, ckpt-7_temp/, ckpt-7.index.tempstate…
            if path.name.partition(".")[0].partition("_")[0] not in committed:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _data_files(self, step: int) -> list[Path]:
        return [
            *sorted(self.folder.glob(f"{PREFIX}-{step}.data-*")),
            *self.folder.glob(f"{PREFIX}-{step}.index"),
        ]

    def _record(self, step: int) -> Path:
        return self.folder / f"{PREFIX}-{step}.json"


def _differences(recorded: list[list[Any]], present: list[list[Any]]) -> list[str]:
    """Lines about every variable that is missing, unexpected, or of another shape or dtype."""
    # Variables are matched by position; paths alone may repeat (two optimizers' "iteration").
    lines = []
    for position in range(max(len(recorded), len(present))):
        there = recorded[position] if position < len(recorded) else None
        here = present[position] if position < len(present) else None
        if _identity(there) != _identity(here):
            lines.append(f"checkpoint: {_shown(there)}; model: {_shown(here)}")
    return lines


def _identity(variable: list[Any] | None) -> list[Any] | None:
    """What must match: Keras numbers names by what the process made before ("dense_7"),
    so the numbers are left out; the position says which of two it is."""
    if variable is None:
        return None
    return [re.sub(r"_\d+(?=[_/@]|$)", "", v) if isinstance(v, str) else v for v in variable]


def _shown(variable: list[Any] | None) -> str:
    if variable is None:
        return "nothing"
    *name, shape, dtype = variable
    return f"{' '.join(name)} {dtype}{shape}"


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _sync_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
