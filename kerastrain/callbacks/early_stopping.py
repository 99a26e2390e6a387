"""EarlyStopping that survives: progress and best weights on disk, in `fit` and in the loop.

    model.fit(..., callbacks=[
        kerastrain.EarlyStopping(monitor="val_loss", patience=5, directory="runs/best")])
    kerastrain.EarlyStopping(stop="gl(2) and after(epochs=3)")

Replaces `keras.callbacks.EarlyStopping` anywhere: the same arguments with the
same meaning. With a `directory` the best weights are kept there by a
`tf.train.CheckpointManager` and restored from there, and a fit that is killed
and started again finds best, wait and stop where they were (`fit_directory`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.callbacks.comparison import OwnComparison, objective_of, overrides
from kerastrain.callbacks.ctrl_c import CtrlC
from kerastrain.callbacks.fit_directory import FitDirectory
from kerastrain.callbacks.status_callback import metric_values
from kerastrain.errors import ObjectiveError, OptionsError, suggestion
from kerastrain.objective import Objective
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

# The best weights, and those before them, until the new ones are referred to.
KEEP_BEST = 2
# Where a first start begins.
NOTHING = Evaluation(-1, 0, 0.0, 0.0, {})


class EarlyStopping(keras.callbacks.EarlyStopping):
    """`keras.callbacks.EarlyStopping` with its progress and the best weights on disk.

    Args:
        monitor, min_delta, patience, verbose, mode, baseline: as in Keras.
        start_from_epoch: as in Keras; `kerastrain.train` counts evaluations.
        restore_best_weights: as in Keras; left out, it is True when there is a `directory`.
        directory: where the best weights and the progress are kept. None: in memory only,
            as in Keras. A fit that was interrupted goes on; after one that has finished the
            next begins anew. `kerastrain.train` has its own work directory instead.
        stop: any criterion of `kerastrain.training.stopping`, or its text, instead of
            patience, min_delta, baseline and start_from_epoch. What is best remains decided
            by `monitor`.

    What subclasses override (`_is_improvement`, `get_monitor_value`, `_set_monitor_op`) and
    settings that are assigned later are used, as is an assigned `wait = 0`. A copy, or a
    pickle, has the progress, and no model.

    Other than in Keras: a value that is not finite is never best, nor are its weights kept;
    values are compared as Python's floats; the best weights are restored after Ctrl-C too; a
    metric that is not reported at the first epoch is an error; assigning `best`, or a `wait`
    other than 0, is an error.

    Raises:
        OptionsError: `stop` cannot be read, or comes with one of the arguments it replaces;
            when training begins, `directory` holds the interrupted fit of something else.
        ObjectiveError: at the first epoch's end, when `monitor`, or another metric that
            `stop` needs, is not among the metrics, or its direction is not known and `mode`
            does not say it. It is a ValueError, as in Keras.
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
        self._stop = parse_criterion(stop) if isinstance(stop, str) else stop
        keras_rule = self._keras_rule(start_from_epoch)
        if stop is not None and keras_rule != Patience(0):
            raise OptionsError(
                f"EarlyStopping was given stop={str(stop)!r} and what makes {str(keras_rule)!r}; "
                "they decide the same thing. Leave one of them out."
            )
        self.best: float | None = None
        # Steps of best weights that checkpoints elsewhere refer to; the loop says which.
        self.still_needed: Callable[[], set[int]] = set
        self._ctrl_c = CtrlC()
        self._forget()

    def _forget(self) -> None:
        self.progress: StoppingProgress | None = None  # Known with the direction, in training.
        self.best_step: int | None = None  # the optimizer step of the best weights
        self._best_untracked: list[Any] = []  # Of variables that Keras does not track.
        self.written_step: int | None = None  # of the best weights on the disk
        self._on_disk: tuple[CheckpointFolder, list[tf.Variable]] | None = None
        self._fit: FitDirectory | None = None  # In `fit`, with a directory.
        self._interrupted: dict[str, Any] | None = None  # Its state, until it is taken up.
        self._shown: tuple[float | None, int] = (None, 0)  # best, wait
        self._has_stopped = False
        self._evaluations: list[Evaluation] = []
        self._before = NOTHING  # The last evaluation of an earlier start of the program.
        # Steps and epochs that lie before what this start counts; known at its first evaluation.
        self._ahead: tuple[int, float] | None = None
        self._began = time.monotonic()

    # Keras's events.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._ctrl_c.stop()  # A fit that died of an exception never said that it ended.
        super().on_train_begin(logs)
        self._forget()
        if self._in_fit:
            if self.directory:
                self._open(self.directory)
            if self.restore_best_weights:
                self._ctrl_c.listen(self.model, self._give_back)
        elif overrides(self, "get_monitor_value"):
            raise OptionsError(
                f"{type(self).__name__} computes what it monitors (get_monitor_value), and "
                "kerastrain.train records, and resumes by, what the model reports. Report the "
                "value as a metric, or put it into the logs by a callback before this one."
            )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Keras resets its counts after this. An epoch that was broken off counts fewer.
        if self._fit is not None and not self.model.stop_training:
            self._fit.learn_rows("training examples", self.model)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._fit.learn_rows("validation examples", self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._fit is not None:
            self._learn_what_is_built(self._fit)
        progress = self._in_training()
        self._heed_assignments()
        if self._has_stopped and progress.stopped:
            # It had stopped before the program was started again: not an epoch more.
            self.model.stop_training = True
            return
        values = self._values(logs, progress)
        if values is None:
            return
        evaluation = self._evaluation(epoch, values)
        if self._in_fit and evaluation.epoch <= self.start_from_epoch:
            return
        self._evaluations.append(evaluation)
        if progress.tell(evaluation):
            if self.restore_best_weights or self.directory:
                self.best_weights = self.model.get_weights()
                self._best_untracked = [variable.numpy() for variable in self._untracked()]
            self.best_step = self._step()
        self._show(progress)
        if progress.stopped:
            self.model.stop_training = True
        if self._fit is not None:
            self._fit.check_alone()
            self.prepare_save()()
            self._fit.write(self.get_state())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._ctrl_c.stop()
        super().on_train_end(logs)
        if self.restore_best_weights:
            self._give_back()
        if self._fit is not None and self._evaluations:
            self._fit.write(self.get_state(), finished=True)
        self._fit = None

    def _give_back(self) -> None:
        """Put back the best weights, and what belongs to the model although Keras looks past it."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
            for variable, value in zip(self._untracked(), self._best_untracked, strict=True):
                variable.assign(value)

    def _untracked(self) -> list[tf.Variable]:
        is_keras = isinstance(self.model, keras.Model)  # In a loop of one's own it need not be.
        return [variable for _, variable in untracked_variables(self.model)] if is_keras else []

    # Whose progress is in the directory.

    def _open(self, directory: Path) -> None:
        self._fit = FitDirectory(directory)
        steps = (self.params or {}).get("steps")
        length = {} if steps is None else {"steps per epoch": steps}
        state = self._fit.begin(self.model, {"monitor": self.monitor, **length})
        if state is not None and getattr(self.model, "built", True):
            self.set_state(state)
        else:
            self._interrupted = state

    def _learn_what_is_built(self, fit: FitDirectory) -> None:
        """What is known only now, before anything is written, of a model that fit builds."""
        fit.learn({"mode": self._objective().direction})
        fit.learn_model(self.model)
        if self._interrupted is not None:
            self.set_state(self._interrupted)
            self._interrupted = None

    # What survives.

    def get_state(self) -> dict[str, Any]:
        """The progress as JSON values; `set_state` takes it up again.

        In the loop the evaluations are the run's own, which keeps them.
        """
        progress = self._in_training().to_json()
        state: dict[str, Any] = {"progress": progress, "best_step": self.best_step}
        if self._in_fit:
            state["best"] = self.best
            state["evaluations"] = [record_of(each) for each in self._evaluations]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`; called after `on_train_begin`, which forgets everything.

        The rule judges what was recorded anew: with another one the run goes on as if it had
        had that from the beginning, and a stop that it would not have made is taken back.

        Raises:
            OptionsError: with another min_delta, say, another evaluation would be the best.
        """
        progress = self._in_training()
        if self._in_fit:
            self._evaluations = evaluations_of(state["evaluations"])
        else:
            self._evaluations = list(self._status.evaluations)
        progress.take_up(state["progress"], self._evaluations)
        if not self._in_fit and (progress.stopped or state["progress"]["stopped"]):
            self.model.stop_training = progress.stopped
        if self._evaluations:
            self._before = self._evaluations[-1]
        self._show(progress)
        self.best_step = state["best_step"]
        if state.get("best", self.best) != self.best:
            raise OptionsError(
                f"The best weights in directory={self.directory} are those of {self.monitor}="
                f"{state['best']}; as EarlyStopping compares now, by min_delta={self.min_delta}, "
                f"say, the best was {self.best}. Compare as before, or give another directory."
            )
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

    def _load_best(self) -> None:
        """Takes the best weights of an earlier start of the run from the disk."""
        if self.best_step is not None:
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
        if self._fit is not None:
            # A program started anew counts anew, so the largest number tells nothing.
            return {newest} if self._fit.best_step is None else {newest, self._fit.best_step}
        return keep_newest(KEEP_BEST)(records, newest=newest) | self.still_needed()

    def _step(self) -> int:
        if not self._in_fit:
            return self._status.step
        step = self._optimizer_steps()
        taken = self._disk()[0].steps() if self.directory else []
        # A program started anew counts anew; the best so far must stay until the new one is safe.
        return step if step not in taken else max(taken) + 1

    # The decision.

    @property
    def rule(self) -> Criterion:
        """When to stop; by Keras's settings as they are now, where no `stop` was given."""
        return self._stop or self._keras_rule(self.start_from_epoch)

    def _keras_rule(self, start_from: int) -> Patience:
        # MonitorCallback keeps the sign of its own comparison in min_delta.
        return Patience(
            self.patience,
            min_delta=abs(self.min_delta),
            baseline=self.baseline,
            start_from=start_from,
        )

    def _new_progress(self) -> StoppingProgress:
        # In `fit` what comes before that epoch is not told, since epochs need not be evaluations.
        start_from = 0 if self._in_fit else self.start_from_epoch
        return StoppingProgress(
            self._stop or self._keras_rule(start_from),
            self._objective(),
            min_delta=abs(self.min_delta),
            start_from=start_from,
        )

    def _in_training(self) -> StoppingProgress:
        progress = self._new_progress()
        if self.progress is None:
            self.progress = progress
        elif self.progress.rule != progress.rule:  # Patience, say, was assigned in mid-training.
            self._retell(self.progress.to_json())
        return self.progress

    def _retell(self, told: dict[str, Any]) -> None:
        self.progress = self._new_progress()
        self.progress.take_up(told, self._evaluations)

    def _heed_assignments(self) -> None:
        """Keras decides by its attributes, so that a user's code may have assigned them."""
        if (self.best, self.wait) == self._shown:
            return
        if self.best != self._shown[0] or self.wait != 0:
            raise OptionsError(
                f"EarlyStopping was assigned best={self.best} and wait={self.wait}; by what was "
                f"recorded they are {self._shown[0]} and {self._shown[1]}. Only wait=0 can be "
                "assigned, to wait anew. A value to beat is baseline=…; what a program started "
                "again must not forget is kept in a directory=…."
            )
        self.go_on()

    def _show(self, progress: StoppingProgress) -> None:
        """Shows the progress in the attributes that Keras's class has, and to the loop's logs."""
        best, latest = progress.best, progress.latest
        self.best = None if best is None else best.value(self.monitor)
        self.best_epoch = 0 if best is None else self._epoch_of(best)
        self.wait = 0 if latest is None else self._waited(progress, latest)
        self.stopped_epoch = self._epoch_of(latest) if latest and progress.stopped else 0
        self._shown, self._has_stopped = (self.best, self.wait), progress.stopped
        if not self._in_fit and progress.verdict is not None:
            self._status.readings = progress.verdict.readings

    def _epoch_of(self, evaluation: Evaluation) -> int:
        return round(evaluation.epoch) - 1 if self._in_fit else evaluation.index

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
        step, passed = self._optimizer_steps(), epoch + 1.0
        if self._ahead is None:
            # A program started anew counts anew, unless it takes up step and epoch itself.
            before = self._before
            steps = before.step if step <= before.step else 0
            self._ahead = steps, before.epoch if passed <= before.epoch else 0.0
        return Evaluation(index, step + self._ahead[0], passed + self._ahead[1], seconds, values)

    def _optimizer_steps(self) -> int:
        """0 where nothing counts them: in a loop of one's own, or with several optimizers."""
        optimizer = getattr(self.model, "optimizer", None)
        steps = 0 if optimizer is None else int(optimizer.iterations.numpy())
        in_steps = [str(leaf) for leaf in self.rule.leaves() if getattr(leaf, "steps", None)]
        if in_steps and not steps and self._evaluations:
            raise OptionsError(
                f"{in_steps[0]} counts steps by model.optimizer.iterations, which this "
                f"{type(self.model).__name__} has not moved. Count epochs or evaluations instead."
            )
        return steps

    def _objective(self) -> Objective:
        objective = objective_of(self)
        if self._stop is not None and isinstance(objective, OwnComparison):
            raise OptionsError(
                f"{type(self).__name__} compares in a way of its own (_is_improvement or "
                f"monitor_op), which stop={str(self._stop)!r} does not. Leave one of them out."
            )
        return objective

    def _values(
        self, logs: dict[str, Any] | None, progress: StoppingProgress
    ) -> dict[str, float] | None:
        """The metrics of this epoch; None: it has none (fit's validation_freq).

        Raises:
            ObjectiveError: a metric that is needed is never reported.
        """
        values = metric_values(logs)
        if self._in_fit and (self.monitor in (logs or {}) or overrides(self, "get_monitor_value")):
            monitored = self.get_monitor_value(logs)
            if monitored is None:
                return None
            # F1Score's is an array of one.
            values |= metric_values({self.monitor: np.squeeze(monitored)})
        missing = sorted(
            progress.metrics - set(values), key=lambda name: (name != self.monitor, name)
        )
        if not missing:
            return values
        has_validation = any(logged.startswith("val_") for logged in values)
        is_trained_on = any(name.removeprefix("val_") in values for name in missing)
        was_reported = self._evaluations or self._ahead is not None
        if was_reported or (is_trained_on and not has_validation):
            if self.monitor in missing:
                self.get_monitor_value(logs)  # Keras's warning will do.
            return None
        raise ObjectiveError(
            f"EarlyStopping monitors '{missing[0]}', which is not among the metrics "
            f"{', '.join(values)}.{suggestion(missing[0], values)}"
        )

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        """For another fit, which gives the copy its model; what is open here stays here."""
        left = {"_model": None, "params": None, "_on_disk": None, "_fit": None}
        progress = None if self.progress is None else self.progress.to_json()
        spent = time.monotonic() - self._began
        own = {"_ctrl_c": CtrlC(), "still_needed": set, "progress": progress, "_began": spent}
        return {**vars(self), **left, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _began=time.monotonic() - state["_began"])
        if state["progress"] is not None:
            self._retell(state["progress"])

    # Where it is.

    @property
    def _in_fit(self) -> bool:
        """The loop of this package names its run; it commits and handles signals by itself."""
        return "run" not in (self.params or {})

    @property
    def _status(self) -> RunStatus:
        return self.params["run"]
