"""Which rows train, which validate, which test: a pure function of the seed and the labels.

    rows = split_rows(len(table), fractions={"train": 0.64, "validation": 0.16, "test": 0.2},
                      seed=0, labels=table["species"])
    rows["test"]   # int64 row numbers, ascending

Drawn by scikit-learn's `train_test_split`; the row numbers are recorded with the run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np

from kerastrain.errors import DataError

logger = logging.getLogger(__name__)


def split_rows(
    n: int,
    *,
    fractions: Mapping[str, float],
    seed: int,
    labels: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Gives every row number below `n` to exactly one split.

    Args:
        n: the number of rows.
        fractions: the share of each split, in sum 1. The first split (commonly
            "train") keeps what the others leave. A share of 0 gives an empty split.
        seed: 0 to 2**32 - 1. The same arguments give the same rows.
        labels: array [n] of classes: each split then holds every class in about
            its overall share. A class of a single row stays in the first split;
            where the others cannot be shared out either, the draw is a plain one
            that leaves a row of every class to the first split where it can.
            Both are logged as warnings.

    Returns:
        {name: int64 [rows of the split], ascending}, in the order of `fractions`.

    Raises:
        DataError: the fractions are not shares of a whole, there are fewer rows
            than splits, or not as many labels as rows.
    """
    sizes = _split_sizes(n, fractions)
    classes = None if labels is None else _class_numbers(labels, n, keeper=next(iter(sizes)))
    first, *others = sizes
    left = np.arange(n, dtype=np.int64)
    rows = {}
    # Backwards, so that the test split does not depend on how the rest is divided.
    for name in reversed(others):
        rows[name] = _draw(left, sizes[name], seed=seed, classes=classes, split=name)
        left = np.delete(left, np.searchsorted(left, rows[name]))
    rows[first] = left
    return {name: rows[name] for name in sizes}


def _split_sizes(n: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers of rows nearest to the shares, in sum n; at least 1 for a share above 0."""
    shown = ", ".join(f"{name} {share:g}" for name, share in fractions.items())
    in_range = all(0 <= share <= 1 for share in fractions.values())
    if not in_range or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise DataError(f"The splits' shares are {shown}; expected numbers from 0 to 1, in sum 1.")
    used = [name for name, share in fractions.items() if share > 0]
    if n < len(used):
        raise DataError(
            f"{n} row(s) cannot be split into {', '.join(used)}; expected {len(used)} or more."
        )
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    sizes = {name: int(n * share + 1e-9) for name, share in fractions.items()}
    by_remainder = sorted(used, key=lambda name: sizes[name] - n * fractions[name])
    for name in by_remainder[: n - sum(sizes.values())]:
        sizes[name] += 1
    for name in used:
        if sizes[name] == 0:
            sizes[max(sizes, key=lambda other: sizes[other])] -= 1
            sizes[name] = 1
    return sizes


def _class_numbers(labels: np.ndarray, n: int, *, keeper: str) -> np.ndarray:
    """Labels as int [n], 0 to (number of classes - 1); warns of classes with a single row."""
    if len(labels) != n:
        raise DataError(f"{n} rows cannot be stratified by {len(labels)} labels.")
    names, numbers = np.unique(labels, return_inverse=True)
    lone = names[np.bincount(numbers.reshape(-1), minlength=len(names)) == 1].tolist()
    if lone:
        logger.warning(
            "%d of %d classes have one row only (%s%s); such rows stay in the %s split.",
            len(lone),
            len(names),
            ", ".join(map(repr, lone[:3])),
            ", …" if len(lone) > 3 else "",
            keeper,
        )
    return numbers.reshape(-1)


def _draw(
    left: np.ndarray, size: int, *, seed: int, classes: np.ndarray | None, split: str
) -> np.ndarray:
    """`size` of the row numbers `left`, ascending; stratified when `classes` allow it."""
    if size in (0, len(left)):
        return left[:size]
    if classes is None:
        return _sample(left, size, seed=seed)
    counts = np.bincount(classes[left])
    drawable = left[counts[classes[left]] > 1]
    shared = int((counts > 1).sum())
    # What scikit-learn asks for: every class can be in both parts.
    if min(size, len(drawable) - size) >= max(shared, 1):
        return _sample(drawable, size, seed=seed, strata=classes[drawable])
    logger.warning(
        "The %s split's %d row(s) cannot be shared out among %d classes; they are drawn "
        "without regard to the class.",
        split,
        size,
        int((counts > 0).sum()),
    )
    spare = np.delete(left, np.unique(classes[left], return_index=True)[1])
    return _sample(spare if len(spare) >= size else left, size, seed=seed)


def _sample(
    rows: np.ndarray, size: int, *, seed: int, strata: np.ndarray | None = None
) -> np.ndarray:
    # Imported here: it takes a second, which a command that only looks at a run need not wait.
    from sklearn.model_selection import train_test_split

    if size == len(rows):
        return rows
    return np.sort(train_test_split(rows, test_size=size, random_state=seed, stratify=strata)[1])
