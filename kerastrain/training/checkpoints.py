"""Checkpoints that cannot lie: one commit, checksums, a strict match, a way back.

    checkpoints = CheckpointFolder(folder, checkpoint, describe=state.describe, keep=keep_newest(3))
    checkpoints.save(step)                  # on the disk when it returns
    step = checkpoints.restore_newest()     # the newest intact one; None when there is none

`tf.train.CheckpointManager` writes the variables; what makes them a checkpoint, and
which there are, is `checkpoint_files`. TensorFlow's own `checkpoint` state file is not
relied on: it changes before the data are known to be on the disk.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerastrain.errors import CheckpointError, DiskFullError, WorkdirError
from kerastrain.training.checkpoint_files import PREFIX, CheckpointFiles, Record
from kerastrain.training.kept_variables import kept_variables
from kerastrain.workdir import read_json, sync, without_patterns

logger = logging.getLogger(__name__)

# Given the records and the step committed last: the steps that stay.
Keep = Callable[..., set[int]]
FULL = (errno.ENOSPC, errno.EDQUOT)


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
        keep: Keep,
    ):
        """
        Args:
            folder: made if it is not there.
            checkpoint: what is saved and restored; all variables exist already.
            describe: [..., path, shape, dtype] of every variable, in the order of saving.
            keep: `keep(records, newest=step)` gives the steps that stay after a commit.
        """
        self.files = CheckpointFiles(folder)
        self._checkpoint = checkpoint
        self._describe = describe
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        return self.files.folder

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, oldest first, intact or not."""
        return self.files.steps()

    def save(
        self,
        step: int,
        *,
        facts: Mapping[str, Any] | None = None,
        needs: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Saves under the number `step`; flushed to the disk and committed on return.

        Args:
            facts: what the record says besides (see `checkpoint_files.Record`).
            needs: gives {relative path: checksum} of files elsewhere that the state refers to.

        Raises:
            DiskFullError: there is no room; what was half written is gone again.
            CheckpointError: the folder cannot be written to. In either case the checkpoints of
                other steps are untouched; one of this step is gone.
        """
        self.files.discard_files(step)
        try:
            # It counts saves in the checkpoint itself; this way the same state, saved by
            # whichever start of a run, gives the same bytes.
            self._checkpoint.save_counter.assign(step - 1)
            self._new_manager().save(checkpoint_number=step, check_interval=False)
            for file in self.files.data_files(step):
                sync(file)
            sync(self.folder)
            content = {**(facts or {}), "variables": self._describe()}
            self.files.commit(step, content, needs=needs())
            self.files.note_first_commit()
        except (OSError, WorkdirError, tf.errors.OpError) as error:
            message = f"The checkpoint of step {step} could not be written to {self.folder}: "
            if is_disk_full(error):
                self.files.remove_leftovers()
                raise DiskFullError(f"{message}the disk is full.") from error
            raise CheckpointError(f"{message}{error}") from error
        self.files.discard_all_but(lambda records: self._keep(records, newest=step))

    def make_room(self, step: int, facts: Mapping[str, Any]) -> list[int]:
        """Removes what would go once the checkpoint of `step` is there; returns the steps.

        The newest that is there stays in any case, and so does what would only go because
        the coming one is better: it may never come.
        """
        coming = Record(step, epoch=facts["epoch"], seconds=facts["seconds"])
        there = self.steps()[-1:]
        return self.files.discard_all_but(
            lambda records: self._keep([*records, coming], newest=step).union(there)
        )

    def restore_newest(self) -> int | None:
        """Restores the newest intact checkpoint and returns its step; None if there never was one.

        A damaged one is moved to `quarantine/` with the reason, and the user is told.

        Raises:
            CheckpointError: there were checkpoints and none is intact, or the newest
                intact one belongs to another model (the differences are listed).
        """
        files, steps = self.files, self.files.steps()
        if not steps and files.had_commits and not files.quarantined():
            raise CheckpointError(
                f"There were checkpoints in {self.folder}, and their records (ckpt-*.json) are "
                "gone. Nothing was changed and nothing was trained. Put the records back, or use "
                "a new --workdir to start from the beginning."
            )
        files.remove_leftovers()
        for step in reversed(steps):
            reason = files.damage(step)
            if reason is None:
                self._restore(step)
                if step != steps[-1]:
                    logger.warning(
                        "The newest checkpoint was damaged; going on from step %d instead of %d.",
                        step,
                        steps[-1],
                    )
                return step
            files.put_in_quarantine(step, reason)
        quarantined = files.quarantined()
        if quarantined:
            # Also when it is started once more: never from zero without being told to.
            raise CheckpointError(
                f"None of the checkpoints in {self.folder} is intact; {', '.join(quarantined)} lie "
                f"in {files.quarantine} with the reasons. Nothing was trained. To start from the "
                "beginning, use a new --workdir."
            )
        return None

    def restore(self, step: int) -> None:
        """Restores one checkpoint.

        Raises:
            CheckpointError: it is not there, is damaged, or belongs to another model.
        """
        reason = self.files.damage(step)
        if reason is not None:
            raise CheckpointError(
                f"The checkpoint of step {step} in {self.folder} cannot be used: {reason}."
            )
        self._restore(step)

    def _new_manager(self) -> tf.train.CheckpointManager:
        """A manager for one save: it would list all that it ever saved, in its state file too."""
        # A killed run can leave the state file empty, and it names what is long gone.
        (self.folder / "checkpoint").unlink(missing_ok=True)
        return tf.train.CheckpointManager(
            self._checkpoint,
            str(self.folder),
            # It would rotate before the new one is committed; `save` does it after.
            max_to_keep=None,
            checkpoint_name=PREFIX,
        )

    def _restore(self, step: int) -> None:
        recorded = read_json(self.files.record_file(step))["variables"]
        differences = _differences(recorded, self._describe())
        if differences:
            raise CheckpointError(
                f"The checkpoint of step {step} in {self.folder} belongs to another model:\n  "
                + "\n  ".join(differences)
            )
        with without_patterns(self.folder) as folder:
            self._checkpoint.restore(f"{folder}/{PREFIX}-{step}").assert_consumed()


def restore_best_weights(model: keras.Model, folder: Path, step: int) -> None:
    """Gives a built model the weights that `kerastrain.EarlyStopping` kept of a step.

    Raises:
        CheckpointError: they are not there, are damaged, or belong to another model, which is
            then as it was.
    """
    own = kept_variables(model)
    with tf.device("/cpu:0"):
        copies = [tf.Variable(tf.zeros(variable.shape, variable.dtype)) for _, variable in own]
    described = [[path, list(variable.shape), variable.dtype.name] for path, variable in own]
    kept = CheckpointFolder(
        folder,
        tf.train.Checkpoint(model=copies),
        describe=lambda: described,
        keep=keep_newest(1),
    )
    kept.restore(step)
    values, count = [copy.numpy() for copy in copies], len(model.weights)
    model.set_weights(values[:count])
    for (_, variable), value in zip(own[count:], values[count:], strict=True):
        variable.assign(value)


def keep_newest(count: int) -> Keep:
    """Keeps the one committed last and the `count` - 1 with the largest numbers."""

    def keep(records: Sequence[Record], *, newest: int) -> set[int]:
        # A program may begin to count anew: the newest need not have the largest number.
        others = [record.step for record in records if record.step != newest]
        return {newest, *others[max(0, len(others) - (count - 1)) :]}

    return keep


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is no room on the disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        # TensorFlow puts the system's words into its own error.
        words = (os.strerror(number) for number in FULL)
        if isinstance(error, tf.errors.OpError) and any(word in str(error) for word in words):
            return True
        error = error.__cause__
    return False


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
