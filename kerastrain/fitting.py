"""From the newest checkpoint to the end of the training, rollbacks included.

fitting = Fitting(job, workdir, parts, starts=starts, signals=signals)
ended = fitting.run()
fitting.early_stopping.best      # its weights are now the model's
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras

from kerastrain.callbacks.early_stopping import EarlyStopping
from kerastrain.callbacks.metrics_log import MetricsLog
from kerastrain.callbacks.progress import ProgressDisplay
from kerastrain.callbacks.tensorboard import TensorBoardLog
from kerastrain.job import Job
from kerastrain.options import checkpoint_interval
from kerastrain.schedules import Schedule, parse_schedule, plateau_callback
from kerastrain.training.cadence import Cadence
from kerastrain.training.checkpoint_files import CheckpointFiles, checksum_of
from kerastrain.training.checkpoints import CheckpointFolder
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Executor
from kerastrain.training.learning_rate import slow_down
from kerastrain.training.loop import Ended, Loop
from kerastrain.training.plan import Plan
from kerastrain.training.progress import needed_files
from kerastrain.training.retention import Retention
from kerastrain.training.rollback import (
    LARGEST_NUMBER,
    Rollback,
    abandoned,
    read_rollbacks,
    target_of,
    write_rollbacks,
)
from kerastrain.training.saving import Saver
from kerastrain.training.signals import Signals
from kerastrain.training.staging import Staging
from kerastrain.training.starts import Starts
from kerastrain.training.state import TrainState
from kerastrain.training.tuning import Choice
from kerastrain.workdir import Workdir

logger = logging.getLogger(__name__)

# The export of a trained model may take so much longer than that of the untrained one did.
EXPORT_MARGIN = 1.5


@dataclass(frozen=True)
class Parts:
    """What a loop is put together from; a rollback makes a new loop from the same.

    Attributes:
        go_on_from: the step where the run had ended, if it is to go on by more epochs.
    """

    state: TrainState
    executor: Executor
    evaluator: Evaluator | None
    staging: Staging
    measurements: Sequence[keras.callbacks.Callback]
    choice: Choice
    plan: Plan
    export_seconds: float
    go_on_from: int | None


class Fitting:
    """The training of one start of a run."""

    def __init__(
        self, job: Job, workdir: Workdir, parts: Parts, *, starts: Starts, signals: Signals
    ):
        self.job = job
        self.options = job.options
        self.workdir = workdir
        self.parts = parts
        self.starts = starts
        self.signals = signals
        self.retention = Retention.of(job.options, job.objective)
        self.checkpoints = CheckpointFolder(
            workdir.latest_checkpoints,
            parts.staging.checkpoint,
            describe=parts.state.describe,
            keep=self.retention.kept,
        )
        self.early_stopping = self._early_stopping()

    def run(self) -> Ended:
        """Trains to an end, from where `restore` has led. The model then has the best weights.

        Raises:
            SignalReceived: everything is saved.
            KerastrainError: a checkpoint cannot be read or written.
        """
        self._warn_of_a_rate_of_zero()
        ended = self._train()
        while ended.reason == "nonfinite" and self._roll_back(ended):
            ended = self._train()
        return ended

    def restore(self) -> None:
        """Goes back to the newest intact checkpoint, if there is one.

        Raises:
            CheckpointError: there were checkpoints and none is intact.
        """
        rollbacks, files = read_rollbacks(self.workdir), self.checkpoints.files
        gone = abandoned(files.records(), rollbacks)
        files.put_aside(gone)
        if self.checkpoints.restore_newest() is None:
            return
        self.parts.staging.give_back()
        self._slow_down(len(rollbacks))
        step = self.parts.state.step
        logger.info("Going on from step %s%s.", f"{step:,}", self._lost(step))

    def _lost(self, step: int) -> str:
        killed = self.starts.killed_before
        if killed is None:
            return ""
        return f"; the start before ended without a word {killed.where}" + (
            f" ({killed.step - step:,} steps are repeated)" if killed.step > step else ""
        )

    def _slow_down(self, halvings: int) -> None:
        if halvings == 0:
            return
        state = self.parts.state
        known = state.host.get("rollbacks", 0)
        if slow_down(state.optimizer, known=known, halvings=halvings):
            self.parts.executor.forget_compiled()
            state.remember_compiled()
        state.host["rollbacks"] = halvings

    def _train(self) -> Ended:
        saver = Saver(self.parts.staging, self.checkpoints, needs=self._needed)
        loop = self._loop(saver)
        with self._closing(loop, saver), self.signals.deferred():
            ended = loop.run(self.signals)
            loop.end()
        return ended

    def _loop(self, saver: Saver) -> Loop:
        parts, files = self.parts, self.checkpoints.files
        return Loop(
            parts.state,
            parts.executor,
            parts.evaluator,
            callbacks=self._callbacks(),
            plan=parts.plan,
            jit=parts.choice.jit,
            step_seconds=parts.choice.step_seconds,
            objective=self.job.objective,
            saver=saver,
            cadence=self._cadence(),
            starts=self.starts,
            deadline=self._deadline(),
            is_worth_saving=lambda value: self.retention.is_among_best(value, files.records()),
            saves_evaluations=self.options.rolls_back,
            go_on_from=self.parts.go_on_from,
        )

    def _cadence(self) -> Cadence:
        interval = checkpoint_interval(self.options)
        fixed = None
        if interval is not None:
            fixed = interval.count if interval.unit == "seconds" else math.inf
        return Cadence(
            mean_seconds_between_interruptions=self.starts.mean_seconds_between_interruptions,
            fixed_seconds=fixed,
        )

    def _deadline(self) -> float:
        """When the loop must have ended, so that the export is over in time."""
        if self.options.max_seconds is None:
            return math.inf
        left = self.options.max_seconds - self.starts.seconds_before - self.starts.seconds
        return time.monotonic() + left - (EXPORT_MARGIN * self.parts.export_seconds + 1.0)

    def _needed(self) -> dict[str, str]:
        """Files that the state refers to, as seen from its own folder."""
        return {**self._needed_best(), **needed_files(self.parts.state.host)}

    def _needed_best(self) -> dict[str, str]:
        step, directory = self.early_stopping.written_step, self.early_stopping.directory
        if step is None or directory is None:
            return {}
        best = CheckpointFiles(directory)
        from_here = os.path.relpath(directory, self.workdir.latest_checkpoints)
        record = best.record_file(step)
        sums = {**best.checksums(step), record.name: checksum_of(record)}
        return {os.path.join(from_here, name): checksum for name, checksum in sums.items()}

    def _roll_back(self, ended: Ended) -> bool:
        """Goes back to the last evaluation with half the learning rate; False: no more of it."""
        rollbacks = read_rollbacks(self.workdir)
        target = target_of(self.checkpoints.files.records())
        if not self.options.rolls_back or target is None or len(rollbacks) == LARGEST_NUMBER:
            return False
        rollbacks = [*rollbacks, Rollback(bad_step=ended.step, to_step=target)]
        write_rollbacks(self.workdir, rollbacks)
        self.restore()
        state = self.parts.state
        logger.warning(
            "The %s was not a finite number at step %d; back to step %d with half the learning "
            "rate, %.3g (%d of %d times).",
            ended.what,
            ended.step,
            state.step,
            state.learning_rate,
            len(rollbacks),
            LARGEST_NUMBER,
        )
        return True

    def _early_stopping(self) -> EarlyStopping:
        """The user's own EarlyStopping of this package, or one made from the options."""
        own = next((c for c in self.job.callbacks if isinstance(c, EarlyStopping)), None)
        if own is not None:
            return own
        return EarlyStopping(
            monitor=self.job.objective.name,
            mode=self.job.objective.direction,
            stop=self.job.stop_rule,
        )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        early_stopping = self.early_stopping
        self._lent = (early_stopping, early_stopping.directory, early_stopping.restore_best_weights)
        # Also of one with a directory of its own, which another run may use too.
        early_stopping.directory = self.workdir.best_checkpoints
        early_stopping.restore_best_weights = True
        early_stopping.still_needed = self.checkpoints.files.steps_needed
        others = [c for c in self.job.callbacks if c is not early_stopping]
        logs = [
            MetricsLog(self.workdir.metrics_file),
            TensorBoardLog(self.workdir.tensorboard),
            *([ProgressDisplay()] if self.job.verbose else []),
        ]
        # What is measured comes before whatever reads the logs; EarlyStopping after the user's
        # own, so that at the end the best weights are the last word.
        return [*self.parts.measurements, *others, *self._plateau(), early_stopping, *logs]

    def _plateau(self) -> list[keras.callbacks.Callback]:
        schedule = self._schedule()
        made = None if schedule is None else plateau_callback(schedule, self.job.objective)
        return [] if made is None else [made]

    def _schedule(self) -> Schedule | None:
        text = self.options.schedule
        return None if text is None else parse_schedule(text)

    def _warn_of_a_rate_of_zero(self) -> None:
        """By --more_epochs, say, a run may outlast its schedule."""
        schedule, plan = self._schedule(), self.parts.plan
        zero = None if schedule is None else schedule.zero_from(plan.steps_per_epoch)
        if zero is not None and zero < plan.last_step:
            logger.warning(
                "The schedule %s ends with a learning rate of 0 at step %s, and the run at step "
                "%s: nothing is learned from there on. Going on with another --schedule takes "
                "--override.",
                schedule,
                f"{zero:,}",
                f"{plan.last_step:,}",
            )

    @contextlib.contextmanager
    def _closing(self, loop: Loop, saver: Saver) -> Iterator[None]:
        """Closes displays, log files and the saving thread however the loop ends."""
        try:
            yield
        finally:
            saver.close()
            for callback in loop.callbacks.callbacks:
                if hasattr(callback, "close"):
                    callback.close()
            # A callback of the user's own may serve in another run.
            own, directory, restores = self._lent
            own.directory, own.restore_best_weights, own.still_needed = directory, restores, set
