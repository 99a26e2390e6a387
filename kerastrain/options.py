"""TrainOptions: everything a user can say about a run, as one frozen value.

    options = TrainOptions(recipe="mnist_cnn", workdir="runs/mnist", batch_size=64)
    options.differences(recorded)   # what a resumed run may not change

A field left at None is decided by the recipe (`Recipe.resolve`). LEARNED names
the fields that change what is learned: a run can only be resumed with the same
values of those. LOCATIONS say where the data lie; what the data *are* is held by
a fingerprint, so a location may change, and one left out is taken from the run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kerastrain.errors import OptionsError

LEARNED = (
    "recipe",
    "target",
    "batch_size",
    "optimizer",
    "learning_rate",
    "seed",
    "patience",
    "objective",
    "evaluate_every",
    "strategy",
    "jit",
    "precision",
    "settings",
)
LOCATIONS = ("data", "data_dir")

STRATEGIES = ("auto", "one_device", "mirrored")
JIT = ("auto", "on", "off")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

Unit = Literal["steps", "epochs", "seconds"]


@dataclass(frozen=True)
class Interval:
    """How often something happens: "500steps", "2epochs", "30s"."""

    count: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, *, flag: str = "interval") -> Interval:
        """Reads "500steps", "1epoch", "2epochs", "30s", "10min".

        Raises:
            OptionsError: the text is none of these; `flag` is named in the message.
        """
        match = re.fullmatch(
            r"\s*(\d+(?:\.\d+)?)?\s*(steps?|epochs?|s|seconds?|min|minutes?)\s*", text
        )
        expected = f"--{flag} is '{text}'; expected for instance '500steps', '1epoch' or '30s'."
        if not match:
            raise OptionsError(expected)
        count = float(match[1] or 1)
        if match[2].startswith("m"):
            return cls._checked(count * 60, "seconds", expected)
        unit: Unit = (
            "steps" if match[2].startswith("st") else "epochs" if match[2][0] == "e" else "seconds"
        )
        return cls._checked(count, unit, expected)

    @classmethod
    def _checked(cls, count: float, unit: Unit, expected: str) -> Interval:
        if count <= 0 or (unit != "seconds" and count != int(count)):
            raise OptionsError(expected)
        return cls(count, unit)

    def __str__(self) -> str:
        return f"{self.count:g}{'s' if self.unit == 'seconds' else self.unit}"


@dataclass(frozen=True)
class TrainOptions:
    """One run, as the user asked for it. None: the recipe decides."""

    recipe: str = "digits"
    workdir: str = ""
    data: str | None = None
    data_dir: str | None = None
    target: str | None = None
    max_epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    seed: int = 0
    patience: int | None = None
    objective: str | None = None
    evaluate_every: str = "1epochs"
    checkpoint_every: str = "30s"
    strategy: str = "auto"
    jit: str = "auto"
    precision: str = "float32"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "max_steps", "batch_size"):
            _require(self, name, "a whole number of at least 1", lambda v: v >= 1)
        _require(self, "patience", "a whole number of at least 0", lambda v: v >= 0)
        _require(self, "learning_rate", "a positive number", lambda v: 0 < v < float("inf"))
        _require(self, "seed", "a whole number from 0 to 2147483647", lambda v: 0 <= v < 2**31)
        for name, known in (("strategy", STRATEGIES), ("jit", JIT), ("precision", PRECISIONS)):
            _require(self, name, "one of " + ", ".join(known), lambda v, known=known: v in known)
        Interval.parse(self.checkpoint_every, flag="checkpoint_every")
        if Interval.parse(self.evaluate_every, flag="evaluate_every").unit == "seconds":
            # Evaluations decide when to stop; on the clock they would differ from run to run.
            raise OptionsError(
                f"--evaluate_every is '{self.evaluate_every}'; expected steps or epochs, "
                "for instance '500steps' or '1epoch'."
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainOptions:
        return cls(**values)

    def differences(self, recorded: TrainOptions) -> list[str]:
        """Lines "batch_size: 128 recorded, 64 now" for every LEARNED field that differs."""
        return [
            f"{name}: {_shown(getattr(recorded, name))} recorded, {_shown(getattr(self, name))} now"
            for name in LEARNED
            if getattr(self, name) != getattr(recorded, name)
        ]

    def located_like(self, recorded: TrainOptions) -> TrainOptions:
        """These options, with data locations that were left out taken from the recorded run."""
        given = any(getattr(self, name) is not None for name in LOCATIONS)
        if given:
            return self
        return dataclasses.replace(self, **{name: getattr(recorded, name) for name in LOCATIONS})


def _require(options: TrainOptions, name: str, expected: str, is_valid: Any) -> None:
    value = getattr(options, name)
    if value is not None and not is_valid(value):
        raise OptionsError(f"--{name} is {_shown(value)}; expected {expected}.")


def _shown(value: Any) -> str:
    return "(the recipe's default)" if value is None else repr(value)
