"""Saving beside the training: a snapshot in memory, written to the disk by a thread.

    saver = Saver(staging, checkpoints)
    saver.save(step, facts=facts, prepare=prepare)   # returns when the snapshot is taken
    saver.finish()                                   # returns when it is on the disk

One job at a time; a save that comes before the last one is written waits for it.
What a state refers to (the best weights, log lines up to its step) is written first,
the state last, so that a checkpoint never refers to what is not there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerastrain.errors import CheckpointError, DiskFullError, WorkdirError
from kerastrain.training.checkpoints import CheckpointFolder, is_disk_full
from kerastrain.training.staging import Staging

logger = logging.getLogger(__name__)

Write = Callable[[], None]


class Saver:
    """Takes snapshots and writes them.

    A full disk does not end the run: what retention would drop goes first, then the
    write is tried again; if there is still no room, the last intact checkpoint stays
    and the next save tries anew. Any other error ends the run, at the next call.
    """

    def __init__(
        self,
        staging: Staging,
        checkpoints: CheckpointFolder,
        *,
        needs: Callable[[], Mapping[str, str]] = dict,
    ):
        """
        Args:
            checkpoints: over `staging.checkpoint`.
            needs: {relative path: checksum} of files that the state refers to, asked for
                after they are written.
        """
        self.writing_seconds: float | None = None
        self._staging = staging
        self._checkpoints = checkpoints
        self._needs = needs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[None] | None = None
        self._unsaved: DiskFullError | None = None

    def save(
        self, step: int, *, facts: Mapping[str, Any], prepare: Callable[[], Sequence[Write]]
    ) -> None:
        """Takes a snapshot of the state, to be written.

        Args:
            facts: what the checkpoint's record says (see `checkpoint_files.Record`).
            prepare: takes snapshots of what the state refers to; gives what writes them.

        Raises:
            CheckpointError: the save before could not be written, for another reason than
                a full disk.
        """
        self.wait()
        writes = prepare()
        self._staging.take()

        def write_state() -> None:
            self._checkpoints.save(step, facts=facts, needs=self._needs)

        self._job = self._thread.submit(self._write, [*writes, write_state], step, dict(facts))

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self._checkpoints.folder

    def has_earlier(self, step: int) -> bool:
        """Whether there is a checkpoint from before `step`."""
        return any(other < step for other in self._checkpoints.steps())

    def write_only(self, prepare: Callable[[], Sequence[Write]]) -> None:
        """Puts what the state refers to on the disk, but not the state; waits for it.

        When there is no room it warns: the best weights are in memory too.
        """
        self.wait()
        try:
            _run(prepare())
        except DiskFullError as error:
            logger.warning("%s", error)

    def wait(self) -> None:
        """Returns when the last snapshot is on the disk, or there was no room for it.

        Raises:
            CheckpointError: it could not be written.
        """
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def raise_error(self) -> None:
        """Raises the error of a write that has ended, and does not wait for one that has not.

        Raises:
            CheckpointError: as `wait`.
        """
        if self._job is not None and self._job.done():
            self.wait()

    def finish(self) -> None:
        """Like `wait`, and the last state must be on the disk.

        Raises:
            CheckpointError: it is not; the message says from where the run can go on.
        """
        self.wait()
        if self._unsaved is not None:
            steps = self._checkpoints.steps()
            raise CheckpointError(
                f"{self._unsaved} The run's last state is not saved"
                + (f"; the newest checkpoint is of step {steps[-1]:,}. " if steps else ". ")
                + "Make room and run the same command: it goes on from there."
            )

    def close(self) -> None:
        """Waits for the thread. An error that nobody was told, since another came first, is."""
        self._thread.shutdown(wait=True)
        job, self._job = self._job, None
        error = None if job is None else job.exception()
        if error is not None:
            logger.error("The last checkpoint could not be saved: %s", error)

    def _write(self, writes: Sequence[Write], step: int, facts: Mapping[str, Any]) -> None:
        began = time.monotonic()
        try:
            try:
                _run(writes)
            except DiskFullError:
                freed = self._checkpoints.make_room(step, facts)
                if not freed:
                    raise
                logger.warning(
                    "The disk is full; to make room, checkpoint %s was removed.",
                    ", ".join(map(str, freed)),
                )
                _run(writes)
            if self._unsaved is not None:
                logger.warning("There is room on the disk again; step %s is saved.", f"{step:,}")
            self._unsaved = None
        except DiskFullError as error:
            if self._unsaved is None:
                newest = max(self._checkpoints.steps(), default=None)
                logger.warning(
                    "%s The run goes on and tries again; %s",
                    error,
                    "nothing is saved yet." if newest is None else f"step {newest:,} is saved.",
                )
            self._unsaved = error
        self.writing_seconds = time.monotonic() - began


def _run(writes: Sequence[Write]) -> None:
    """Runs them in order.

    Raises:
        DiskFullError: one of them found no room.
        CheckpointError: one of them could not write.
    """
    for write in writes:
        try:
            write()
        except (OSError, WorkdirError, tf.errors.OpError) as error:  # of logs and event files
            kind = DiskFullError if is_disk_full(error) else CheckpointError
            raise kind(f"The run's state and logs could not be saved: {error}") from error
