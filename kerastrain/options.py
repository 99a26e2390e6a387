"""TrainOptions: everything a user can say about a run, as one frozen value.

    options = TrainOptions(recipe="mnist_cnn", workdir="runs/mnist", batch_size=64)
    options.differences(recorded)   # what a resumed run may not change

A field left at None is decided by the recipe (`Recipe.resolve`). LEARNED names
the fields that change what is learned: a run can only be resumed with the same
values of those. LOCATIONS say where the data lie; what the data *are* is held by
a fingerprint, so a location may change, and one left out is taken from the run. When to stop
may be said anew as well, as long as the run is not beyond the new end (`kerastrain.continuation`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal

from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import parse, parse_call
from kerastrain.objective import Objective

LEARNED = (
    "recipe",
    "target",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "seed",
    "objective",
    "evaluate_every",
    "evaluate_examples",
    "evaluate_batch",
    "strategy",
    "jit",
    "precision",
    "on_nonfinite",
    "settings",
)
LOCATIONS = ("data", "data_dir")

STRATEGIES = ("auto", "one_device", "mirrored")
JIT = ("auto", "on", "off")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
ON_NONFINITE = ("stop", "rollback")
AUTO = "auto"
ALL = "all"
NEVER = "never"

Unit = Literal["steps", "epochs", "seconds"]


@dataclass(frozen=True)
class Interval:
    """How often something happens: "500steps", "2epochs", "30s", "2hours"."""

    count: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, *, flag: str = "interval") -> Interval:
        """Reads "500steps", "1epoch", "2epochs", "30s", "10min", "2h".

        Raises:
            OptionsError: the text is none of these; `flag` is named in the message.
        """
        match = re.fullmatch(
            r"\s*(\d+(?:\.\d+)?)?\s*(steps?|epochs?|s|seconds?|min|minutes?|h|hours?)\s*", text
        )
        expected = f"--{flag} is '{text}'; expected for instance '500steps', '1epoch' or '30s'."
        if not match:
            raise OptionsError(expected)
        count = float(match[1] or 1)
        if match[2][0] in "mh":
            seconds = count * (60 if match[2][0] == "m" else 3600)
            return cls._checked(seconds, "seconds", expected)
        unit: Unit = (
            "steps" if match[2].startswith("st") else "epochs" if match[2][0] == "e" else "seconds"
        )
        return cls._checked(count, unit, expected)

    @classmethod
    def _checked(cls, count: float, unit: Unit, expected: str) -> Interval:
        is_whole = math.isfinite(count) and count == int(count)
        if not 0 < count < math.inf or (unit != "seconds" and not is_whole):
            raise OptionsError(expected)
        return cls(count, unit)

    def __str__(self) -> str:
        # Every digit and no exponent, so that `parse` reads back the same interval.
        count = f"{Decimal(repr(self.count)):f}".removesuffix(".0")
        return f"{count}{'s' if self.unit == 'seconds' else self.unit}"


@dataclass(frozen=True)
class TableOptions:
    """How a table is read, divided and used; what recipes for tables read besides `data`.

    Attributes:
        schema: file of a schema, as a run writes it; None: inferred.
        ignore_columns: not used, although they could be.
        task: "classification" or "regression"; None: decided from the target.
        quantiles: of the target's distribution to predict, rising, between 0 and 1.
        positive: of two classes the one that is looked for; None: decided.
        weights: a column of positive numbers: how much each row counts.
        balance: every class counts the same in training.
        split_column, split_time, split_group: a column that says which rows train, validate
            and test; by which the newest test; whose groups are kept together.
        validation_data, test_data: files of these splits; `data` is the rest then.
        separator, header, encoding: of CSV; None: detected.
        stream: read the table in batches and train from disk; None: when it is too large.
    """

    schema: str | None = None
    ignore_columns: tuple[str, ...] = ()
    task: str | None = None
    quantiles: tuple[float, ...] = ()
    positive: str | None = None
    weights: str | None = None
    balance: bool = False
    split_column: str | None = None
    split_time: str | None = None
    split_group: str | None = None
    validation_data: str | None = None
    test_data: str | None = None
    separator: str | None = None
    header: bool | None = None
    encoding: str = "utf-8"
    stream: bool | None = None

    def __post_init__(self) -> None:
        # JSON has lists.
        object.__setattr__(self, "ignore_columns", tuple(self.ignore_columns))
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        _require(self, "task", "one of " + ", ".join(TASKS), TASKS.__contains__)
        _require(
            self, "quantiles", "numbers that rise, between 0 and 1, as in 0.1,0.5,0.9", _are_levels
        )
        if self.quantiles and self.task == "classification":
            raise OptionsError(
                f"--quantiles={','.join(map(str, self.quantiles))} is for numbers, but --task is "
                "classification. Leave one of them out."
            )
        splits = ("split_column", "split_time", "split_group", "test_data")
        given = [name for name in splits if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionsError(
                f"--{given[0]} and --{given[1]} both say which rows test; give one of them."
            )
        if self.validation_data is not None and self.test_data is None:
            raise OptionsError(
                "--validation_data is given without --test_data; rows to test would be missing. "
                "Give both, or neither."
            )

    def differences(self, recorded: TableOptions) -> list[str]:
        """Lines "task: 'regression' recorded, None now" for what changes what is learned."""
        return [
            f"{name}: {getattr(recorded, name)!r} recorded, {getattr(self, name)!r} now"
            for name in (option.name for option in dataclasses.fields(self))
            if name not in TABLE_LOCATIONS and getattr(self, name) != getattr(recorded, name)
        ]


TASKS = ("classification", "regression")
# Where things lie; what they hold is judged by the data's fingerprint.
TABLE_LOCATIONS = ("schema", "validation_data", "test_data")


@dataclass(frozen=True)
class TrainOptions:
    """One run, as the user asked for it. None: the recipe decides."""

    recipe: str = "digits"
    workdir: str = ""
    data: str | None = None
    data_dir: str | None = None
    target: str | None = None
    table: TableOptions = field(default_factory=TableOptions)
    max_epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | str | None = None
    optimizer: str | None = None
    learning_rate: float | str | None = None
    schedule: str | None = None
    seed: int = 0
    patience: int | None = None
    stop: str | None = None
    objective: str | None = None
    evaluate_every: str = "1epochs"
    evaluate_examples: int | None = None
    evaluate_batch: int | str | None = None
    checkpoint_every: str = AUTO
    strategy: str = "auto"
    jit: str = "auto"
    precision: str = "float32"
    max_seconds: float | None = None
    more_epochs: int | None = None
    on_nonfinite: str = "stop"
    inexact_resume: bool = False
    keep_last: int = 3
    keep_best: int = 1
    keep_every: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"max_epochs": 1, "max_steps": 1, "patience": 0, "evaluate_examples": 1}
        counts |= {"more_epochs": 1, "keep_last": 1, "keep_best": 0}
        for name, least in counts.items():
            _require(self, name, f"a whole number of at least {least}", _at_least(least))
        for name in ("batch_size", "evaluate_batch"):
            _require(
                self, name, f"a whole number of at least 1, or '{ALL}'", _or(ALL, _at_least(1))
            )
        _require(self, "learning_rate", f"a positive number, or '{AUTO}'", _or(AUTO, _is_positive))
        _require(self, "max_seconds", "a positive number", _is_positive)
        _require(self, "seed", "a whole number from 0 to 2147483647", _is_seed)
        choices = {"strategy": STRATEGIES, "jit": JIT, "precision": PRECISIONS}
        for name, known in {**choices, "on_nonfinite": ON_NONFINITE}.items():
            _require(self, name, "one of " + ", ".join(known), known.__contains__)
        if self.objective is not None:
            Objective.parse(self.objective)
        if self.stop is not None:
            parse(self.stop, flag="stop")
            if self.patience is not None:
                raise OptionsError(
                    f"--patience={self.patience} and --stop={self.stop!r} decide the same thing; "
                    f"give --stop='patience({self.patience}) or ...' alone."
                )
        for name in ("optimizer", "schedule"):
            if getattr(self, name) is not None:
                parse_call(getattr(self, name), flag=name)
        checkpoint_interval(self)
        if self.keep_every is not None:
            Interval.parse(self.keep_every, flag="keep_every")
        Interval.parse(self.evaluate_every, flag="evaluate_every")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainOptions:
        """The options that `to_json` wrote.

        Raises:
            OptionsError: there are options of another version of this package, or values
                that cannot be used.
        """
        known = [option.name for option in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise OptionsError(
                    f"The recorded options hold '{name}', which this version of kerastrain "
                    f"does not know.{suggestion(name, known)}"
                )
        given = dict(values)
        table = given.pop("table", {})
        unknown = set(table) - {option.name for option in dataclasses.fields(TableOptions)}
        if unknown:
            raise OptionsError(
                f"The recorded options hold '{min(unknown)}' for tables, which this version of "
                "kerastrain does not know."
            )
        return cls(**given, table=TableOptions(**table))

    def differences(self, recorded: TrainOptions) -> list[str]:
        """Lines "batch_size: 128 recorded, 64 now" for every LEARNED field that differs."""
        return self.table.differences(recorded.table) + [
            f"{name}: {_shown(getattr(recorded, name))} recorded, {_shown(getattr(self, name))} now"
            for name in LEARNED
            if getattr(self, name) != getattr(recorded, name)
            and self._meaning(name) != recorded._meaning(name)
        ]

    def _meaning(self, name: str) -> Any:
        """The value of a field; equal for values that say the same."""
        if name == "evaluate_batch":
            return self.evaluate_batch or self.batch_size
        return _meaning(name, getattr(self, name))

    @property
    def stop_rule(self) -> str:
        """When to stop, as `--stop` says it: patience alone is one of the criteria."""
        if self.stop is not None:
            return self.stop
        return NEVER if self.patience is None else f"patience({self.patience})"

    @property
    def rolls_back(self) -> bool:
        """Whether a loss that is not finite leads back to the last evaluation."""
        return self.on_nonfinite == "rollback"

    def located_like(self, recorded: TrainOptions) -> TrainOptions:
        """These options, with data locations that were left out taken from the recorded run."""
        table = {
            name: getattr(recorded.table, name)
            for name in TABLE_LOCATIONS
            if getattr(self.table, name) is None
        }
        located = dataclasses.replace(self, table=dataclasses.replace(self.table, **table))
        if any(getattr(self, name) is not None for name in LOCATIONS):
            return located
        return dataclasses.replace(located, **{name: getattr(recorded, name) for name in LOCATIONS})


def checkpoint_interval(options: TrainOptions) -> Interval | None:
    """How often to save, as the user said; None: as often as it pays ("auto").

    Raises:
        OptionsError: it is neither.
    """
    if options.checkpoint_every == AUTO:
        return None
    return Interval.parse(options.checkpoint_every, flag="checkpoint_every")


def _meaning(name: str, value: Any) -> Any:
    """Equal for values that say the same: "1epoch" and "1epochs", "adam" and "Adam"."""
    if value is None:
        return None
    if name == "evaluate_every":
        return Interval.parse(value)
    if name == "objective":
        return Objective.parse(value)
    if name in ("optimizer", "schedule"):
        call = parse_call(value, flag=name)
        return dataclasses.replace(call, name=call.name.lower())
    if name == "recipe":
        return value.rpartition("/")[2]  # What its file says is compared by `kerastrain.sources`.
    # JSON turns a tuple into a list; the setting is the same.
    return json.dumps(dict(value), sort_keys=True) if name == "settings" else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _at_least(least: int) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and value >= least


def _or(word: str, is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value == word or is_valid(value)


def _is_seed(value: Any) -> bool:
    return _is_whole(value) and 0 <= value < 2**31


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and 0 < float(value) < math.inf


def _are_levels(value: Any) -> bool:
    return all(_is_positive(level) and level < 1 for level in value) and all(
        low < high for low, high in itertools.pairwise(value)
    )


def _require(
    options: TrainOptions | TableOptions, name: str, expected: str, is_valid: Callable[[Any], bool]
) -> None:
    value = getattr(options, name)
    if value is not None and not is_valid(value):
        raise OptionsError(f"--{name} is {_shown(value)}; expected {expected}.")


def _shown(value: Any) -> str:
    return "(the recipe's default)" if value is None else repr(value)
