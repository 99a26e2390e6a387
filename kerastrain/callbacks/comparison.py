"""How an EarlyStopping of Keras's compares, as an Objective; what subclasses override is used.

objective = objective_of(callback)      # asks its _is_improvement, if that is not Keras's
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from kerastrain.errors import ObjectiveError
from kerastrain.objective import Direction, Objective, known_direction


@dataclass(frozen=True)
class OwnComparison(Objective):
    """What is better by an `_is_improvement(value, reference)`, or a `monitor_op`, of one's own."""

    improves: Callable[[float, float | None], bool]

    def is_better(self, value: float | None, *, than: float | None, min_delta: float = 0.0) -> bool:
        """Whatever it says of a finite value; by how much it must be better, it knows itself."""
        return value is not None and math.isfinite(value) and bool(self.improves(value, than))


def objective_of(callback: Any) -> Objective:
    """What `callback` monitors, and the direction; sets its `monitor_op` as Keras does.

    Raises:
        ObjectiveError: the direction is not known, and `mode` does not say it.
    """
    if callback.monitor_op is None:
        _set_monitor_op(callback)
    direction: Direction = "min" if callback.monitor_op(0.0, 1.0) else "max"
    is_keras_op = callback.monitor_op in (keras.ops.less, keras.ops.greater)
    if is_keras_op and not overrides(callback, "_is_improvement"):
        return Objective(callback.monitor, direction)
    return OwnComparison(callback.monitor, direction, callback._is_improvement)


def overrides(callback: Any, method: str) -> bool:
    """Whether its class, or this instance, has a method of its own in place of Keras's."""
    own = getattr(getattr(callback, method), "__func__", None)
    return own is not getattr(keras.callbacks.EarlyStopping, method)


def _set_monitor_op(callback: Any) -> None:
    try:
        callback._set_monitor_op()  # Keras knows the direction of its own metrics.
    except ValueError:
        known = known_direction(callback.monitor)
        if known is None:
            raise ObjectiveError(
                f"Whether '{callback.monitor}' should fall or rise is not known; "
                "say it with mode='min' or mode='max'."
            ) from None
        callback.monitor_op = keras.ops.less if known == "min" else keras.ops.greater
        if known == "min":
            callback.min_delta *= -1  # As Keras does.
