"""Permutation importance: how much worse a published model is without each column.

    found = permutation_importance(version_folder, data, rows=10_000, repeats=5)
    found.columns[0]           # ColumnImportance("capital-gain", mean=0.061, std=0.002)

A column's values are shuffled among the validation rows, which leaves it as it is but
unrelated to the target and to the other columns; the importance is by how much the
metric becomes worse (Breiman 2001, "Random Forests", section 10; Fisher, Rudin &
Dominici 2019, "All Models are Wrong, but Many are Useful", on what it says about a
model). The model that is asked is the published SavedModel, with raw columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Examples, Regression, Task
from kerastrain.errors import DataError, OptionsError
from kerastrain.export.asking import Export, load_export
from kerastrain.export.rows import as_tensors
from kerastrain.export.scoring import HIGHER_IS_BETTER, metric

# Spearman's coefficient from which on two columns say nearly the same.
ALIKE = 0.9


@dataclass(frozen=True)
class ColumnImportance:
    """Mean and standard deviation, over the repeats, of the worsening of the metric.

    The standard deviation is of the repeats' own values (n - 1); 0 for one repeat.
    """

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class Importance:
    """What every column is worth to a model.

    Attributes:
        metric, baseline: which one, and its value on the rows as they are.
        rows, repeats: of the validation split; shuffles of each column.
        columns: the most important first.
        alike: pairs of number columns and their Spearman coefficient, above 0.9 either way.
        positive: the positive one of two classes.
    """

    metric: str
    baseline: float
    rows: int
    repeats: int
    columns: tuple[ColumnImportance, ...]
    alike: tuple[tuple[str, str, float], ...]
    positive: str | int | None = None

    def to_json(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        return {**plain, "columns": list(plain["columns"]), "alike": [*map(list, self.alike)]}


def permutation_importance(
    version_folder: Path,
    data: Data,
    *,
    task: Task | None = None,
    metric_name: str | None = None,
    rows: int = 10_000,
    repeats: int = 5,
    seed: int = 0,
) -> Importance:
    """Measures every input column of a published version on the data's validation split.

    Args:
        task: what is predicted, for data that do not say it themselves.
        metric_name: one of `scoring.score`. Default: loss for classes, rmse for numbers,
            pinball for quantiles.
        rows: at most so many validation rows, chosen at random.
        repeats: shuffles of each column; each a function of (seed, column, repeat).

    Raises:
        OptionsError: `rows`, `repeats` or the metric cannot be used.
        DataError: there are no validation rows of named columns.
        ExportError: the SavedModel cannot be loaded, or does not take the rows.
    """
    if rows < 2 or repeats < 1:
        raise OptionsError(
            f"--rows is {rows} and --repeats {repeats}; expected at least 2 rows and 1 repeat."
        )
    columns, validation = validation_columns(data)
    task = data.task or task
    name = metric_name or _default_metric(task)
    export = load_export(version_folder)
    chosen = _sample(len(validation), rows, seed=seed)
    columns = {each: columns[each][chosen] for each in _known(export, columns)}
    targets = validation.targets[chosen]
    weights = None if validation.weights is None else validation.weights[chosen]

    def value(outputs: Mapping[str, np.ndarray]) -> float:
        return metric(task, name, outputs, targets, weights=weights)

    tensors = as_tensors(columns, export.inputs)
    baseline = value(export.ask(tensors))
    sign = -1 if name in HIGHER_IS_BETTER else 1
    worse: dict[str, list[float]] = {each: [] for each in columns}
    for column, outputs in _shuffled_answers(export, tensors, repeats=repeats, seed=seed):
        worse[column].append(sign * (value(outputs) - baseline))
    found = [ColumnImportance(each, *_mean_and_std(values)) for each, values in worse.items()]
    found.sort(key=lambda each: -each.mean)  # Stable: equal ones stay in the columns' order.
    return Importance(
        name, baseline, len(targets), repeats, tuple(found), alike_columns(columns),
        positive=getattr(task, "positive", None),
    )  # fmt: skip


def validation_columns(data: Data) -> tuple[dict[str, np.ndarray], Examples]:
    """The validation split's raw columns by input name, and its examples.

    Raises:
        DataError: there is no validation split, or its rows have no named columns.
    """
    if data.validation is None:
        raise DataError("The data have no validation split; importance is measured on its rows.")
    raw = data.validation_rows if data.encoder is not None else data.validation.inputs
    if not isinstance(raw, Mapping):
        raise DataError(
            "The rows of these data are arrays without named columns (images, for instance); "
            "permutation importance shuffles columns, so it needs a table, or data with "
            "`validation_rows`, {name: array}."
        )
    columns = {name: np.asarray(values) for name, values in raw.items()}
    if any(len(values) != len(data.validation) for values in columns.values()):
        raise DataError(
            "The data's `validation_rows` and validation split differ in their number of rows."
        )
    return columns, data.validation


def alike_columns(columns: Mapping[str, np.ndarray]) -> tuple[tuple[str, str, float], ...]:
    """Pairs of number columns that rank the rows nearly alike: (name, name, Spearman's rho).

    A missing value counts as the column's middle rank.
    """
    numbers = {
        name: values
        for name, values in columns.items()
        if values.ndim == 1 and values.dtype.kind in "fiub" and len(np.unique(values)) > 1
    }
    if len(numbers) < 2:
        return ()
    names = list(numbers)
    with np.errstate(invalid="ignore", divide="ignore"):  # a column all but missing
        rho = np.corrcoef([_centred_ranks(values) for values in numbers.values()])
    pairs = zip(*np.nonzero(np.triu(np.abs(np.nan_to_num(rho)) > ALIKE, 1)), strict=True)
    return tuple((names[i], names[j], float(rho[i, j])) for i, j in pairs)


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    ranks = np.zeros(len(values))
    ranks[known] = scipy.stats.rankdata(values[known]) - (known.sum() + 1) / 2
    return ranks


def _default_metric(task: Task | None) -> str:
    if isinstance(task, Classification):
        return "loss"
    if isinstance(task, Regression):
        return "pinball" if task.quantiles else "rmse"
    raise DataError(
        "Neither the data nor the model's manifest name a task, so there is no metric by which "
        "columns could be important. Give the data a task: Data(task=Classification(…))."
    )


def _known(export: Export, columns: Mapping[str, np.ndarray]) -> list[str]:
    missing = [name for name in export.inputs if name not in columns]
    if missing:
        raise DataError(
            f"The published model takes the input '{missing[0]}', which the data's validation "
            f"rows lack; they have {', '.join(columns)}."
        )
    return [name for name in columns if name in export.inputs]


def _sample(count: int, rows: int, *, seed: int) -> np.ndarray:
    """At most `rows` of `count` row numbers, rising."""
    if count <= rows:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, rows, replace=False))


def _shuffled_answers(
    export: Export, tensors: Mapping[str, tf.Tensor], *, repeats: int, seed: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The answers for every copy of the rows in which one column is shuffled, with its name."""
    count = int(next(iter(tensors.values())).shape[0])
    copies = [(name, repeat) for name in tensors for repeat in range(repeats)]
    # As many copies as fill a batch: with few rows a call costs more than its rows.
    at_once = max(1, export.at_once // count)
    for start in range(0, len(copies), at_once):
        part = copies[start : start + at_once]
        answers = export.ask(_copies(tensors, part, count, seed=seed))
        for place, (name, _) in enumerate(part):
            own = slice(place * count, (place + 1) * count)
            yield name, {output: values[own] for output, values in answers.items()}


def _copies(
    tensors: Mapping[str, tf.Tensor], copies: list[tuple[str, int]], count: int, *, seed: int
) -> dict[str, tf.Tensor]:
    """The rows [count] once for each of `copies`, one below the other."""
    stacked = {}
    for column, tensor in tensors.items():
        if len(copies) == 1 and column != copies[0][0]:
            stacked[column] = tensor
            continue
        rows = np.tile(np.arange(count), len(copies))
        for place, (name, repeat) in enumerate(copies):
            if name == column:
                rows[place * count : (place + 1) * count] = _permutation(
                    name, repeat, count, seed=seed
                )
        stacked[column] = tf.gather(tensor, rows)
    return stacked


def _permutation(column: str, repeat: int, count: int, *, seed: int) -> np.ndarray:
    # By the column's name and not its place: another column more changes no other's numbers.
    return np.random.default_rng([seed, repeat, *column.encode()]).permutation(count)


def _mean_and_std(values: list[float]) -> tuple[float, float]:
    std = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(std)
