"""StatusCallback: a callback that knows where the run is, in either loop.

    class Display(StatusCallback):
        def on_epoch_end(self, epoch, logs=None):
            show(self.status.step, metric_values(logs))

The loop of this package passes a RunStatus and keeps it up to date; under
`model.fit` there is none, so this one is filled in from the optimizer and from
what Keras passes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras

from kerastrain.errors import TrainingError
from kerastrain.training.evaluation import as_floats
from kerastrain.training.learning_rate import optimizers_of
from kerastrain.training.status import RunStatus


class StatusCallback(keras.callbacks.Callback):
    """Base of callbacks that display or record; `status` is the place to look.

    Under `model.fit`, `status.step` is the optimizer's count of steps, and what
    is not known stays at its default (0, None).

    Attributes:
        per_chunk: tells the loop that a call per chunk of steps will do; for other
            callbacks that listen to batches it runs one step at a time.
    """

    per_chunk = True

    def __init__(self) -> None:
        super().__init__()
        self._fit_status = RunStatus(objective=None)
        self._fit_started = time.monotonic()
        self._epoch_start = (0, 0)

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        if "run" not in params:
            self._fit_started = time.monotonic()
            self._fit_status = RunStatus(
                objective=None,
                max_epochs=params.get("epochs") or 0,
                steps_per_epoch=params.get("steps") or 0,
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.in_fit:
            status = self.status
            self._epoch_start = (epoch, status.step)
            epochs_left = int(status.max_epochs) - epoch
            status.last_step = status.step + epochs_left * status.steps_per_epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.in_fit:
            self._epoch_start = (epoch + 1, self.status.step)

    @property
    def in_fit(self) -> bool:
        """Whether `model.fit` drives this callback, and not the loop of this package."""
        return "run" not in (self.params or {})

    @property
    def status(self) -> RunStatus:
        """Where the run is now.

        Raises:
            TrainingError: under `model.fit`, the model has no optimizer to count steps.
        """
        if not self.in_fit:
            return self.params["run"]
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            raise TrainingError(
                f"{type(self).__name__} counts steps by model.optimizer.iterations; "
                f"this {type(self.model).__name__} has no optimizer. "
                "Compile it with one, or train it with kerastrain.train."
            )
        self._update_in_fit(optimizer)
        return self._fit_status

    def _update_in_fit(self, optimizer: Any) -> None:
        status = self._fit_status
        status.step = int(optimizer.iterations)
        status.learning_rate = float(optimizers_of(optimizer)[0].learning_rate)
        status.seconds = time.monotonic() - self._fit_started
        epoch, first_step = self._epoch_start
        # In a data set of unknown length only whole epochs can be told.
        per_epoch = status.steps_per_epoch
        status.epoch = epoch + ((status.step - first_step) / per_epoch if per_epoch else 0.0)


def metric_values(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers among logs, as `as_floats` gives them."""
    return as_floats(logs or {})
