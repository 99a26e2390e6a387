"""EarlyStopping that survives: progress and best weights on disk, in `fit` and in the loop.

    model.fit(..., callbacks=[
        kerastrain.EarlyStopping(monitor="val_loss", patience=5, directory="runs/best")])

Replaces `keras.callbacks.EarlyStopping` anywhere: the same arguments with the
same meaning. With a `directory` the best weights are kept there by a
`tf.train.CheckpointManager` and restored from there, and a program that is killed
and started again finds best, wait and stop where they were.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from kerastrain.errors import ObjectiveError, suggestion
from kerastrain.objective import Direction, Objective, known_direction
from kerastrain.training.checkpoint_files import Record
from kerastrain.training.checkpoints import CheckpointFolder, keep_newest
from kerastrain.training.stopping import Patience, PatienceProgress
from kerastrain.workdir import read_json, write_json

# The best weights, and those before them, until the new ones are referred to.
KEEP_BEST = 2


class EarlyStopping(keras.callbacks.EarlyStopping):
    """`keras.callbacks.EarlyStopping` with its progress and the best weights on disk.

    Args:
        monitor, min_delta, patience, verbose, mode, baseline, start_from_epoch: as in Keras.
        restore_best_weights: as in Keras; left out, it is True when there is a `directory`.
        directory: where the best weights and the progress are kept. None: in memory only,
            as in Keras. `kerastrain.train` keeps them in its own work directory instead.

    Other than in Keras: a value that is not finite is never best; the best weights are
    restored after Ctrl-C too; a metric that is not reported is an error.

    Raises:
        ObjectiveError: at the first epoch's end, when `monitor` is not among the metrics or
            its direction is not known and `mode` does not say it.
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
        self.progress = PatienceProgress()
        self.best_step: int | None = None  # the optimizer step of the best weights
        # Steps of best weights that checkpoints elsewhere refer to; the loop says which.
        self.still_needed: Callable[[], set[int]] = set
        self.written_step: int | None = None  # of the best weights on the disk
        self._on_disk: tuple[CheckpointFolder, list[tf.Variable]] | None = None
        self._rule: Patience | None = None
        self._previous_handler: Any = None

    # Keras's events.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_listening()  # A fit that died of an exception never said that it ended.
        super().on_train_begin(logs)
        self._show(PatienceProgress())
        self.best_step, self.written_step, self._on_disk, self._rule = None, None, None, None
        if self._in_fit:
            if self._progress_file and self._progress_file.exists():
                self.set_state(read_json(self._progress_file))
            self._listen_to_ctrl_c()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.progress.stopped:
            # It had stopped before the program was started again: not an epoch more.
            self.model.stop_training = True
            return
        before = self.progress
        value = self._monitored(logs or {})
        self._show(self._ready_rule().update(before, value=value, index=epoch))
        if self.progress.best != before.best:  # An improvement is always strict.
            self.best_weights = self.model.get_weights()
            self.best_step = self._step()
        if self.progress.stopped:
            self.model.stop_training = True
        if self._in_fit and self._progress_file:
            self.commit()
            write_json(self._progress_file, self.get_state())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_listening()
        super().on_train_end(logs)

    # What survives.

    def get_state(self) -> dict[str, Any]:
        """The progress as JSON values; `set_state` takes it up again."""
        return {"progress": self.progress.to_json(), "best_step": self.best_step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`; called after `on_train_begin`, which forgets everything.

        A stop is taken back when the patience is larger than what was waited: the run goes
        on as one that had this patience from the beginning.
        """
        progress = PatienceProgress.from_json(state["progress"])
        if progress.stopped and progress.wait < self.patience:
            progress = dataclasses.replace(progress, stopped_index=None)
            self.model.stop_training = False
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
        self._show(dataclasses.replace(self.progress, wait=0, stopped_index=None))

    def prepare_save(self) -> Callable[[], None]:
        """What puts the best weights as they are now on the disk.

        It may be called while the training goes on.
        """
        weights, step = self.best_weights, self.best_step
        if step is None or step == self.written_step or not self.directory:
            return lambda: None
        folder, variables = self._disk()

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
            self.best_weights = [variable.numpy() for variable in variables]
            self.written_step = self.best_step

    def _disk(self) -> tuple[CheckpointFolder, list[tf.Variable]]:
        if self._on_disk is None:
            assert self.directory
            weights = self.model.weights
            with tf.device("/cpu:0"):
                variables = [tf.Variable(tf.zeros(w.shape, w.dtype)) for w in weights]
            described = [
                [w.path, list(w.shape), keras.backend.standardize_dtype(w.dtype)] for w in weights
            ]
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
        run = (self.params or {}).get("run")
        if run is not None:
            return run.step
        step = int(self.model.optimizer.iterations)
        taken = self._disk()[0].steps() if self.directory else []
        # A program started anew counts anew; the best so far must stay until the new one is safe.
        return step if step not in taken else max(taken) + 1

    # The decision.

    def _show(self, progress: PatienceProgress) -> None:
        """Takes over a progress, and shows it in the attributes that Keras's class has."""
        self.progress = progress
        self.best = progress.best
        self.best_epoch = progress.best_index or 0
        self.wait = progress.wait
        self.stopped_epoch = progress.stopped_index or 0

    def _ready_rule(self) -> Patience:
        if self._rule is None:
            self._rule = Patience(
                Objective(self.monitor, self._direction()),
                patience=self.patience,
                # MonitorCallback keeps the sign of its own comparison in it.
                min_delta=abs(self.min_delta),
                baseline=self.baseline,
                start_from=self.start_from_epoch,
            )
        return self._rule

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

    def _monitored(self, logs: dict[str, Any]) -> float | None:
        if self.monitor in logs:
            return float(logs[self.monitor])
        has_validation = any(name.startswith("val_") for name in logs)
        if not has_validation and self.monitor.removeprefix("val_") in logs:
            # An epoch without validation (fit's validation_freq): Keras's warning will do.
            return self.get_monitor_value(logs)
        raise ObjectiveError(
            f"EarlyStopping monitors '{self.monitor}', which is not among the metrics "
            f"{', '.join(logs)}.{suggestion(self.monitor, logs)}"
        )

    # Ctrl-C in fit, where no callback is told of it.

    @property
    def _in_fit(self) -> bool:
        """The loop of this package names its run; it commits and handles signals by itself."""
        return "run" not in (self.params or {})

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
