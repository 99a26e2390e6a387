"""EarlyStopping that survives: progress and best weights on disk, in `fit` and in the loop.

    model.fit(..., callbacks=[
        kerastrain.EarlyStopping(monitor="val_loss", patience=5, directory="runs/best")])
    kerastrain.EarlyStopping(stop="gl(2) and after(epochs=3)")

Replaces `keras.callbacks.EarlyStopping` anywhere: the same arguments with the
same meaning. With a `directory` the best weights are kept there by a
`tf.train.CheckpointManager` and restored from there, and a program that is killed
and started again finds best, wait and stop where they were.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from kerastrain.callbacks.status_callback import metric_values
from kerastrain.errors import ObjectiveError, OptionsError, suggestion
from kerastrain.objective import Direction, Objective, known_direction
from kerastrain.training.checkpoint_files import Record
from kerastrain.training.checkpoints import CheckpointFolder, keep_newest
from kerastrain.training.kept_variables import kept_variables, untracked_variables
from kerastrain.training.status import RunStatus
from kerastrain.training.stopping import (
    Criterion,
    Evaluation,
    Patience,
    StoppingProgress,
    evaluations_of,
    parse_criterion,
    record_of,
)
from kerastrain.workdir import read_json, write_json

# The best weights, and those before them, until the new ones are referred to.
KEEP_BEST = 2
# Where a first start begins.
NOTHING = Evaluation(-1, 0, 0.0, 0.0, {})


class EarlyStopping(keras.callbacks.EarlyStopping):
    """`keras.callbacks.EarlyStopping` with its progress and the best weights on disk.

    Args:
        monitor, min_delta, patience, verbose, mode, baseline: as in Keras.
        start_from_epoch: as in Keras, counted in evaluations since training began.
        restore_best_weights: as in Keras; left out, it is True when there is a `directory`.
        directory: where the best weights and the progress are kept. None: in memory only,
            as in Keras. `kerastrain.train` keeps them in its own work directory instead.
        stop: any criterion of `kerastrain.training.stopping`, or its text, instead of
            patience, min_delta, baseline and start_from_epoch. What is best remains decided
            by `monitor`.

    Other than in Keras: a value that is not finite is never best; the best weights are
    restored after Ctrl-C too; a metric that is not reported is an error.

    Raises:
        OptionsError: `stop` cannot be read, or comes with one of the arguments it replaces.
        ObjectiveError: at the first epoch's end, when `monitor`, or another metric that
            `stop` needs, is not among the metrics, or its direction is not known and `mode`
            does not say it.
        CheckpointError: the weights in `directory` are damaged or another model's.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool | None = None,
        start_from_epoch: int = 0,
        *,
        directory: str | os.PathLike[str] | None = None,
        stop: Criterion | str | None = None,
    ):
        if restore_best_weights is None:
            restore_best_weights = directory is not None
        super().__init__(
            monitor=monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode=mode,
            baseline=baseline,
            restore_best_weights=restore_best_weights,
            start_from_epoch=start_from_epoch,
        )
        self.directory = None if directory is None else Path(directory)
        self.rule = self._rule(stop)
        self.progress: StoppingProgress | None = None  # Known with the direction, in training.
        self.best: float | None = None
        self.best_step: int | None = None  # the optimizer step of the best weights
        # Steps of best weights that checkpoints elsewhere refer to; the loop says which.
        self.still_needed: Callable[[], set[int]] = set
        self._best_untracked: list[Any] = []  # Of variables that Keras does not track.
        self.written_step: int | None = None  # of the best weights on the disk
        self._on_disk: tuple[CheckpointFolder, list[tf.Variable]] | None = None
        self._evaluations: list[Evaluation] = []
        self._before = NOTHING  # The last evaluation of an earlier start of the program.
        # Steps and epochs that lie before what this start counts; known at its first evaluation.
        self._ahead: tuple[int, float] | None = None
        self._began = time.monotonic()
        self._previous_handler: Any = None

    # Keras's events.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_listening()  # A fit that died of an exception never said that it ended.
        super().on_train_begin(logs)
        self.progress = self._new_progress()
        self.best = None
        self.best_step, self.written_step, self._on_disk = None, None, None
        self._evaluations, self._before, self._began = [], NOTHING, time.monotonic()
        self._ahead = None
        if self._in_fit:
            if self._progress_file and self._progress_file.exists():
                self.set_state(read_json(self._progress_file))
            self._listen_to_ctrl_c()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        progress = self._in_training()
        if progress.stopped:
            # It had stopped before the program was started again: not an epoch more.
            self.model.stop_training = True
            return
        if self._is_without_validation(logs or {}, progress):
            return
        self._evaluations.append(self._evaluation(epoch, metric_values(logs)))
        if progress.tell(self._evaluations[-1]):
            self._take_weights()
            self.best_step = self._step()
        self._show(progress)
        if progress.stopped:
            self.model.stop_training = True
        if self._in_fit and self._progress_file:
            self.commit()
            write_json(self._progress_file, self.get_state())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_listening()
        super().on_train_end(logs)
        if self.restore_best_weights:
            self._give_untracked()

    def _take_weights(self) -> None:
        """Keep the model's weights as they are now, and what else belongs to it."""
        self.best_weights = self.model.get_weights()
        self._best_untracked = [v.numpy() for _, v in untracked_variables(self.model)]

    def _give_untracked(self) -> None:
        """Put back what Keras, which restores the weights, does not know."""
        if self.best_weights is not None:
            variables = [variable for _, variable in untracked_variables(self.model)]
            for variable, value in zip(variables, self._best_untracked, strict=True):
                variable.assign(value)

    # What survives.

    def get_state(self) -> dict[str, Any]:
        """The progress as JSON values; `set_state` takes it up again.

        In the loop the evaluations are the run's own, which keeps them.
        """
        progress = self._in_training().to_json()
        state: dict[str, Any] = {"progress": progress, "best_step": self.best_step}
        if self._in_fit:
            state["evaluations"] = [record_of(each) for each in self._evaluations]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`; called after `on_train_begin`, which forgets everything.

        The rule judges what was recorded anew: with another one the run goes on as if it had
        had that from the beginning, and a stop that it would not have made is taken back.
        """
        progress = self._in_training()
        if self._in_fit:
            self._evaluations = evaluations_of(state["evaluations"])
        else:
            self._evaluations = list(self._status.evaluations)
        progress.take_up(state["progress"], self._evaluations)
        if state["progress"]["stopped"] and not progress.stopped:
            self.model.stop_training = False
        if progress.stopped and not self._in_fit:
            self.model.stop_training = True
        if self._evaluations:
            self._before = self._evaluations[-1]
        self._show(progress)
        self.best_step = state["best_step"]
        if self.directory:
            # Best weights of a future that the resumed run will repeat.
            newest = -1 if self.best_step is None else self.best_step
            files, needed = self._disk()[0].files, self.still_needed()
            files.discard_all_but(
                lambda records: {r.step for r in records if r.step <= newest or r.step in needed}
            )
            # Now, and not when they are wanted: if they are damaged, it is known at the start.
            self._load_best()

    def go_on(self) -> None:
        """Begins to wait anew, after a stop that is not to be the end; the best stays."""
        self._in_training().go_on()
        self._show(self._in_training())

    def prepare_save(self) -> Callable[[], None]:
        """What puts the best weights as they are now on the disk.

        It may be called while the training goes on.
        """
        step = self.best_step
        if step is None or step == self.written_step or not self.directory:
            return lambda: None
        folder, variables = self._disk()
        weights = [*self.best_weights, *self._best_untracked]

        def write() -> None:
            if self.written_step == step:
                return  # By a first attempt, after which something else found no room.
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)
            folder.save(step)
            self.written_step = step

        return write

    def commit(self) -> None:
        """Puts the best weights on the disk, if they are not there yet.

        Raises:
            CheckpointError: they could not be written.
        """
        self.prepare_save()()

    def _load_best(self) -> None:
        """Takes the best weights of an earlier start of the run from the disk."""
        if self.best_step is not None and self.directory:
            folder, variables = self._disk()
            folder.restore(self.best_step)
            values = [variable.numpy() for variable in variables]
            count = len(self.model.weights)
            self.best_weights, self._best_untracked = values[:count], values[count:]
            self.written_step = self.best_step

    def _disk(self) -> tuple[CheckpointFolder, list[tf.Variable]]:
        if self._on_disk is None:
            assert self.directory
            weights = kept_variables(self.model)
            with tf.device("/cpu:0"):
                variables = [tf.Variable(tf.zeros(w.shape, w.dtype)) for _, w in weights]
            described = [[path, list(w.shape), w.dtype.name] for path, w in weights]
            folder = CheckpointFolder(
                self.directory,
                tf.train.Checkpoint(model=variables),
                describe=lambda: described,
                keep=self._kept,
            )
            self._on_disk = folder, variables
        return self._on_disk

    def _kept(self, records: Sequence[Record], *, newest: int) -> set[int]:
        return keep_newest(KEEP_BEST)(records, newest=newest) | self.still_needed()

    def _step(self) -> int:
        if not self._in_fit:
            return self._status.step
        step = int(self.model.optimizer.iterations)
        taken = self._disk()[0].steps() if self.directory else []
        # A program started anew counts anew; the best so far must stay until the new one is safe.
        return step if step not in taken else max(taken) + 1

    # The decision.

    def _rule(self, stop: Criterion | str | None) -> Criterion:
        # MonitorCallback keeps the sign of its own comparison in min_delta.
        keras_rule = Patience(
            self.patience,
            min_delta=abs(self.min_delta),
            baseline=self.baseline,
            start_from=self.start_from_epoch,
        )
        if stop is None:
            return keras_rule
        if keras_rule != Patience(0):
            raise OptionsError(
                f"EarlyStopping was given stop={str(stop)!r} and what makes {str(keras_rule)!r}; "
                "they decide the same thing. Leave one of them out."
            )
        return parse_criterion(stop) if isinstance(stop, str) else stop

    def _new_progress(self) -> StoppingProgress | None:
        """None where the direction cannot be known before Keras knows the model's metrics."""
        try:
            objective = Objective(self.monitor, self._direction())
        except ObjectiveError:
            return None
        return StoppingProgress(
            self.rule,
            objective,
            min_delta=abs(self.min_delta),
            start_from=self.start_from_epoch,
        )

    def _in_training(self) -> StoppingProgress:
        if self.progress is None:
            self._direction()  # Says what is missing.
            self.progress = self._new_progress()
        assert self.progress is not None
        return self.progress

    def _show(self, progress: StoppingProgress) -> None:
        """Shows the progress in the attributes that Keras's class has, and to the loop's logs."""
        best, latest = progress.best, progress.latest
        self.best = None if best is None else best.value(self.monitor)
        self.best_epoch = 0 if best is None else best.index
        self.wait = 0 if latest is None else self._waited(progress, latest)
        self.stopped_epoch = latest.index if latest is not None and progress.stopped else 0
        if not self._in_fit and progress.verdict is not None:
            self._status.readings = progress.verdict.readings

    def _waited(self, progress: StoppingProgress, latest: Evaluation) -> int:
        if isinstance(self.rule, Patience) and self.rule.evaluations is not None:
            assert progress.verdict is not None
            return int(progress.verdict.readings[0].value or 0)
        return latest.index - (progress.best.index if progress.best else -1)

    def _evaluation(self, epoch: int, values: dict[str, float]) -> Evaluation:
        index = len(self._evaluations)
        if not self._in_fit:
            status = self._status
            # Rounded as the run records it, so that a resumed one decides the same.
            return Evaluation(index, status.step, status.epoch, round(status.seconds, 3), values)
        seconds = self._before.seconds + time.monotonic() - self._began
        step, passed = int(self.model.optimizer.iterations), epoch + 1.0
        if self._ahead is None:
            # A program started anew counts anew, unless it takes up step and epoch itself.
            before = self._before
            steps = before.step if step <= before.step else 0
            self._ahead = steps, before.epoch if passed <= before.epoch else 0.0
        return Evaluation(index, step + self._ahead[0], passed + self._ahead[1], seconds, values)

    def _direction(self) -> Direction:
        known = known_direction(self.monitor)
        if self.mode in ("min", "max"):
            return self.mode
        if known is not None:
            return known
        try:
            self._set_monitor_op()  # Keras knows the direction of its own metrics.
        except ValueError:
            raise ObjectiveError(
                f"Whether '{self.monitor}' should fall or rise is not known; "
                "say it with mode='min' or mode='max'."
            ) from None
        return "min" if self.monitor_op is keras.ops.less else "max"

    def _is_without_validation(self, logs: dict[str, Any], progress: StoppingProgress) -> bool:
        """Whether this is an epoch after which fit did not validate (its validation_freq).

        Raises:
            ObjectiveError: a metric that is needed is never reported.
        """
        missing = sorted(
            progress.metrics - set(logs), key=lambda name: (name != self.monitor, name)
        )
        if not missing:
            return False
        has_validation = any(logged.startswith("val_") for logged in logs)
        if not has_validation and any(name.removeprefix("val_") in logs for name in missing):
            if self.monitor not in logs:
                self.get_monitor_value(logs)  # Keras's warning will do.
            return True
        raise ObjectiveError(
            f"EarlyStopping monitors '{missing[0]}', which is not among the metrics "
            f"{', '.join(logs)}.{suggestion(missing[0], logs)}"
        )

    # Ctrl-C in fit, where no callback is told of it.

    @property
    def _in_fit(self) -> bool:
        """The loop of this package names its run; it commits and handles signals by itself."""
        return "run" not in (self.params or {})

    @property
    def _status(self) -> RunStatus:
        return self.params["run"]

    @property
    def _progress_file(self) -> Path | None:
        return None if self.directory is None else self.directory / "early_stopping.json"

    def _listen_to_ctrl_c(self) -> None:
        if self.restore_best_weights and threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_ctrl_c)

    def _stop_listening(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None

    def _on_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous_handler
        self._stop_listening()
        # After a fit that died of an exception the handler is still there; the model is not ours.
        if self.best_weights is not None and _runs_fit(frame, self.model):
            self.model.set_weights(self.best_weights)
            self._give_untracked()
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            raise KeyboardInterrupt


def _runs_fit(frame: FrameType | None, model: keras.Model) -> bool:
    """Whether `model.fit` is among the calls that a signal interrupted."""
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False
