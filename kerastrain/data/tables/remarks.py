"""What should be known about a table before it is learned from: leaks, imbalance, duplicates.

    for remark in leaks(columns, targets, schema): logger.warning("%s", remark)
    twice = duplicates(columns, splits)             # {"validation": 3, "test": 5}

Nothing is changed; each remark says what was found and what can be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import RawColumns, Texts
from kerastrain.data.tables.schema import Schema

# A column that alone explains this share of the errors (or of the variance) is suspect.
LEAK_ERRORS = 0.95
LEAK_VARIANCE = 0.9
# Classes whose counts differ by more than this factor are imbalanced.
IMBALANCE = 20
# Rows looked at for leaks; intervals that a number is divided into.
LEAK_ROWS = 50_000
INTERVALS = 100
# A value needs so many rows on average: fewer would be known by heart.
ROWS_PER_VALUE = 20


def leaks(columns: RawColumns, targets: np.ndarray, schema: Schema) -> Iterator[str]:
    """Columns that alone predict the target almost perfectly.

    Args:
        columns, targets: of the training rows; int [n] or float64 [n, 1].
    """
    rows = np.linspace(0, len(targets) - 1, min(LEAK_ROWS, len(targets))).astype(np.int64)
    chosen = targets[rows].reshape(len(rows))
    is_class = isinstance(schema.task, Classification)
    for column in schema.columns:
        groups = _groups(columns[column.input], rows)
        if groups is None:
            continue
        known = (_explained_errors if is_class else _explained_variance)(groups, chosen)
        if known >= (LEAK_ERRORS if is_class else LEAK_VARIANCE):
            what = "errors" if is_class else "variance"
            yield (
                f"Column '{column.name}' alone explains {known:.1%} of the {what} of "
                f"'{schema.target}'. Is it known before '{schema.target}' is? If not, leave it "
                f"out: --ignore_columns={column.name}"
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


def _groups(values: np.ndarray | Texts, rows: np.ndarray) -> np.ndarray | None:
    """A group number for each of the rows; None when the column tells nearly all apart."""
    if isinstance(values, Texts):
        groups = np.unique(values.codes[rows], return_inverse=True)[1]
    else:
        chosen = values[rows]
        different = np.unique(chosen[~np.isnan(chosen)])
        if len(different) > INTERVALS:
            different = np.unique(np.quantile(different, np.linspace(0, 1, INTERVALS)))
        groups = np.searchsorted(different, chosen)  # NaN goes last.
    return groups if ROWS_PER_VALUE * (groups.max() + 1) <= len(rows) else None


def _explained_errors(groups: np.ndarray, targets: np.ndarray) -> float:
    """1 - errors of each group's most frequent class / errors of the most frequent class."""
    counts = np.zeros((groups.max() + 1, targets.max() + 1), np.int64)
    np.add.at(counts, (groups, targets), 1)
    errors = len(targets) - counts.max(axis=1).sum()
    without = len(targets) - counts.sum(axis=0).max()
    return 1 - errors / without if without else 0.0


def _explained_variance(groups: np.ndarray, targets: np.ndarray) -> float:
    """R² of the groups' means."""
    values = targets.astype(np.float64)
    sizes = np.maximum(np.bincount(groups), 1)
    means = np.bincount(groups, weights=values) / sizes
    total = ((values - values.mean()) ** 2).sum()
    return 1 - ((values - means[groups]) ** 2).sum() / total if total else 0.0


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
