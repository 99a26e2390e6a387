"""The one place that says what is better.

    objective = Objective.parse("val_accuracy")
    objective.is_better(0.99, than=0.98)   # True
    objective.is_better(math.nan, than=None)  # False: NaN is never better

Directions of well-known metric names come from a table; for any other name the
direction must be said ("val_my_score:max"). Nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kerastrain.errors import ObjectiveError, suggestion

Direction = Literal["min", "max"]

# Names as Keras reports them, without the "val_" prefix.
DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(
        (
            "loss",
            "error",
            "mae",
            "mse",
            "rmse",
            "mape",
            "msle",
            "mean_absolute_error",
            "mean_squared_error",
            "root_mean_squared_error",
            "mean_absolute_percentage_error",
            "mean_squared_logarithmic_error",
            "log_loss",
            "binary_crossentropy",
            "categorical_crossentropy",
            "sparse_categorical_crossentropy",
            "kl_divergence",
            "poisson",
            "hinge",
            "squared_hinge",
            "huber",
            "logcosh",
            "brier_score",
        ),
        "min",
    ),
    **dict.fromkeys(
        (
            "acc",
            "accuracy",
            "binary_accuracy",
            "categorical_accuracy",
            "sparse_categorical_accuracy",
            "top_k_categorical_accuracy",
            "sparse_top_k_categorical_accuracy",
            "auc",
            "pr_auc",
            "precision",
            "recall",
            "f1",
            "f1_score",
            "fbeta_score",
            "r2",
            "r2_score",
            "mean_io_u",
            "binary_io_u",
        ),
        "max",
    ),
}


@dataclass(frozen=True)
class Objective:
    """A metric's name as it appears in the logs, and the direction in which it improves."""

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise ObjectiveError(
                f"The direction of the objective '{self.name}' is '{self.direction}'; "
                "expected 'min' or 'max'."
            )

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Reads "val_loss" (direction from the table) or "val_score:max".

        Raises:
            ObjectiveError: the name is not in the table and no direction is given.
        """
        name, colon, direction = text.partition(":")
        if not colon:
            known = known_direction(name)
            if known is None:
                raise ObjectiveError(
                    f"Whether '{name}' should fall or rise is not known. "
                    f"Say it: '{name}:min' or '{name}:max'.{_suggestion(name)}"
                )
            direction = known
        if not name:
            raise ObjectiveError(
                f"The objective '{text}' names no metric; expected for instance 'val_loss' "
                "or 'val_my_score:max'."
            )
        return cls(name, direction)  # type: ignore[arg-type]  # checked in __post_init__

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"

    def is_better(self, value: float | None, *, than: float | None, min_delta: float = 0.0) -> bool:
        """Whether `value` improves on `than` by more than `min_delta` (>= 0).

        None and NaN are never better than anything; every finite value is
        better than None or NaN. An infinity is never better: it is not a
        result that anybody wants to keep.
        """
        if value is None or not math.isfinite(value):
            return False
        if than is None or math.isnan(than):
            return True
        if self.direction == "min":
            return value + min_delta < than
        return value - min_delta > than

    def check_reported(self, names: Iterable[str]) -> None:
        """Raises ObjectiveError, with a suggestion, unless the name is among `names`."""
        reported = list(names)
        if self.name not in reported:
            raise ObjectiveError(
                f"The objective '{self.name}' is not among the metrics "
                f"{', '.join(reported)}.{suggestion(self.name, reported)}"
            )


def _suggestion(name: str) -> str:
    prefix = "val_" if name.startswith("val_") else ""
    return suggestion(name, [prefix + known for known in DIRECTIONS])


def known_direction(name: str) -> Direction | None:
    """The direction of a well-known metric (with or without "val_"), or None."""
    return DIRECTIONS.get(name.removeprefix("val_"))
