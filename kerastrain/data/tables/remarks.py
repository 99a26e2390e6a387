"""What should be known about a table before it is learned from: leaks, imbalance, duplicates.

    for remark in leaks(columns, targets, schema): logger.warning("%s", remark)
    twice = duplicates(columns, splits)             # {"validation": 3, "test": 5}

Nothing is changed; each remark says what was found and what can be done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import RawColumns, Texts
from kerastrain.data.tables.schema import Schema
from kerastrain.data.tables.statistics import days

# A column that alone explains this share of the errors (or of the variance) is suspect.
LEAK_ERRORS = 0.95
LEAK_VARIANCE = 0.9
# Classes whose counts differ by more than this factor are imbalanced.
IMBALANCE = 20
# Rows looked at for leaks: at the most, at least, and of those not of the most frequent class.
LEAK_ROWS = 50_000
LEAST_ROWS = 30
LEAST_OTHERS = 5
# Intervals that a number is divided into, where so many rows come to each.
INTERVALS = 100
ROWS_PER_INTERVAL = 20
# A value needs so many rows on average; of fewer it does not tell the target of another row.
ROWS_PER_VALUE = 5


def leaks(columns: RawColumns, targets: np.ndarray, schema: Schema) -> Iterator[str]:
    """Columns that alone predict the target almost perfectly.

    Args:
        columns, targets: of the training rows; int [n] or float64 [n, 1].
    """
    rows = np.linspace(0, len(targets) - 1, min(LEAK_ROWS, len(targets))).astype(np.int64)
    chosen = targets[rows].reshape(len(rows))
    is_class = isinstance(schema.task, Classification)
    others = len(rows) - np.bincount(chosen).max() if is_class else LEAST_OTHERS
    if len(rows) < LEAST_ROWS or 0 < others < LEAST_OTHERS:
        few = f"{len(rows)} training rows" + f", {others} not of the largest class" * is_class
        yield f"Whether a column gives '{schema.target}' away is not known: too few rows ({few})."
        return
    # The greatest numbers can be most of the variance, and have no neighbours: ranks as well.
    kinds = [chosen] if is_class else [chosen, _ranks(chosen)]
    for column in schema.columns:
        values = columns[column.input]
        if column.kind == "date" and isinstance(values, Texts):
            values = days(values.values)[values.codes]
        known = _explained(values.take(rows), kinds, is_class)
        if known >= (LEAK_ERRORS if is_class else LEAK_VARIANCE):
            what = "errors" if is_class else "variance"
            or_ranks = "" if is_class else " (or of its ranks)"
            yield (
                f"Column '{column.name}' alone explains {known:.1%} of the {what} of "
                f"'{schema.target}'{or_ranks}. Is it known before '{schema.target}' is? If not, "
                f"leave it out: --ignore_columns={column.name}"
            )


def imbalance(targets: np.ndarray, schema: Schema) -> Iterator[str]:
    """Classes of very different sizes."""
    if not isinstance(schema.task, Classification):
        return
    counts = np.bincount(targets, minlength=len(schema.task.classes))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] > IMBALANCE * max(1, counts[least]):
        classes = schema.task.classes
        yield (
            f"The classes are imbalanced: {classes[most]!r} has {counts[most]:,} training rows, "
            f"{classes[least]!r} has {counts[least]:,}. Accuracy says little then; --balance "
            "gives each class the same weight in training."
        )


def duplicates(columns: RawColumns, splits: Mapping[str, np.ndarray]) -> dict[str, int]:
    """{"validation": n, "test": n}: rows whose columns all equal those of a training row.

    Args:
        columns: of the whole table, as they were: encoded, rare values are all the same.
    """
    hashes = _row_hashes(columns)
    train = pa.array(hashes[splits["train"]])
    return {
        name: pc.sum(pc.is_in(pa.array(hashes[rows]), value_set=train)).as_py() or 0
        for name, rows in splits.items()
        if name != "train"
    }


def duplicate_remark(found: Mapping[str, int], splits: Mapping[str, np.ndarray]) -> str | None:
    """A sentence when one row in a hundred, or more, is a training row again."""
    worst = max(found, key=lambda name: found[name] / max(1, len(splits[name])))
    share = found[worst] / max(1, len(splits[worst]))
    if share < 0.01:
        return None
    return (
        f"{found[worst]:,} of {len(splits[worst]):,} {worst} rows ({share:.1%}) equal a training "
        "row in all columns used, so results may look better than they are. Remove duplicates, "
        "or keep them together by --split_group."
    )


def _ranks(numbers: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[places]


def _explained(values: np.ndarray | Texts, kinds: list[np.ndarray], is_class: bool) -> float:
    """How much of the targets' errors or variance the column explains: each row's target is told
    from the other rows of its value, or, of numbers that hardly recur, from its neighbours.

    Args:
        kinds: the targets, as they are or transformed; the best explained one counts.
    """
    if isinstance(values, Texts):
        groups = np.unique(values.codes, return_inverse=True)[1]
    else:
        different = np.unique(values[~np.isnan(values)])
        has_intervals = len(values) >= INTERVALS * ROWS_PER_INTERVAL
        if len(different) > INTERVALS and has_intervals:
            different = np.unique(np.quantile(different, np.linspace(0, 1, INTERVALS)))
        elif ROWS_PER_VALUE * (len(different) + 1) > len(values):
            # Equal numbers in any order but the file's, which may be the targets' own.
            order = np.lexsort((np.random.default_rng(0).random(len(values)), values))
            by_neighbours = _class_by_neighbours if is_class else _number_by_neighbours
            return max(by_neighbours(targets[order]) for targets in kinds)
        groups = np.searchsorted(different, values)  # NaN goes last.
    if ROWS_PER_VALUE * (groups.max() + 1) > len(groups):
        return 0.0
    by_group = _explained_errors if is_class else _explained_variance
    return max(by_group(groups, targets) for targets in kinds)


def _class_by_neighbours(targets: np.ndarray) -> float:
    """Of targets in a column's order: a row out of place makes two changes of class."""
    classes = np.bincount(targets)
    changes = np.count_nonzero(np.diff(targets)) - (np.count_nonzero(classes) - 1)
    return _avoided(changes / 2, len(targets) - classes.max())


def _number_by_neighbours(targets: np.ndarray) -> float:
    """R² of the mean of the targets on both sides, in a column's order."""
    places, reach = np.arange(len(targets)), max(1, len(targets) // INTERVALS)
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(targets))
    values = targets.astype(np.float64) - targets.mean()
    sums = np.cumsum([0, *values])
    means = (sums[high] - sums[low] - values) / (high - low - 1)
    total = (values**2).sum()
    return 1 - ((values - means) ** 2).sum() / total if total else 0.0


def _explained_errors(groups: np.ndarray, targets: np.ndarray) -> float:
    """1 - errors of the most frequent class of each row's group, but for the row itself / errors
    of the most frequent class."""
    counts = np.zeros((groups.max() + 1, targets.max() + 2), np.int64)
    np.add.at(counts, (groups, targets), 1)
    second, first = np.sort(counts, axis=1)[:, -2:].T
    errors = len(targets) - first[first - 1 > second].sum()
    without = len(targets) - counts.sum(axis=0).max()
    return _avoided(errors, without)


def _avoided(errors: float, without: int) -> float:
    """1 - errors / errors without the column; a deviation more of them, since few are chance."""
    return 1 - (errors + math.sqrt(max(errors, 0))) / without if without else 0.0


def _explained_variance(groups: np.ndarray, targets: np.ndarray) -> float:
    """R² of the means of each row's group, but for the row itself."""
    values = targets.astype(np.float64) - targets.mean()
    sizes = np.bincount(groups)
    means = np.bincount(groups, weights=values) / np.maximum(sizes, 1)
    missed = (values - means[groups]) * np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 1)[
        groups
    ]
    total = (values**2).sum()
    return 1 - (missed**2).sum() / total if total else 0.0


def _row_hashes(columns: RawColumns) -> np.ndarray:
    """uint64 [n]: the sum of the columns' bits, each times an odd number of its own and mixed.

    Column by column, so that little memory is taken. Mixed, because whole numbers as float32
    end in zeros, and products of them do, too.
    """
    hashes = np.zeros(len(next(iter(columns.values()))), np.uint64)
    random = np.random.default_rng(0)
    for name in sorted(columns):
        values = columns[name]
        # + 0: there are two zeros.
        column = values.codes if isinstance(values, Texts) else values + np.float32(0)
        bits = column.view(f"u{column.itemsize}").astype(np.uint64)
        bits *= np.uint64(int(random.integers(0, 2**63)) * 2 + 1)
        hashes += bits ^ (bits >> np.uint64(29))
    return hashes
