"""Which rows of a table train, validate and test: by chance, by a column, by time or by group.

    splits = split_table(table, labels, TableOptions(split_time="date"), seed=0)
    splits["test"]          # int64 row numbers, ascending

By chance: 64 % training, 16 % validation and 20 % test, classes in the same shares in each. By
time: the newest rows test, those before them validate, rows of one time stay together. By
group: a group lies in one split only. By a column: as it says; where it names no validation
rows, a fifth of the training rows validates.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.splits import split_rows
from kerastrain.data.tables.columns import is_date, is_number
from kerastrain.data.tables.statistics import days
from kerastrain.errors import DataError, suggestion
from kerastrain.options import TableOptions

logger = logging.getLogger(__name__)

FRACTIONS = {"train": 0.64, "validation": 0.16, "test": 0.2}
VALIDATION_OF_TRAIN = 0.2

# What a split column may call the splits.
NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_table(
    table: pa.Table, labels: np.ndarray | None, options: TableOptions, *, seed: int
) -> dict[str, np.ndarray]:
    """Gives every row to one split.

    Args:
        labels: array [n] of classes, None for regression.

    Returns:
        {"train", "validation", "test"}: int64 row numbers, ascending.

    Raises:
        DataError: the column is not there or cannot split the rows.
    """
    column = options.split_column or options.split_time or options.split_group
    if column is None:
        return split_rows(table.num_rows, fractions=FRACTIONS, seed=seed, labels=labels)
    if column not in table.column_names:
        raise DataError(
            f"There is no column '{column}' to split by; the columns are: "
            f"{', '.join(table.column_names)}.{suggestion(column, table.column_names)}"
        )
    values = table[column]
    if values.null_count:
        raise DataError(
            f"The column '{column}' that splits the rows is missing in {values.null_count:,} of "
            f"{len(values):,} rows; fill it, or remove these rows."
        )
    if options.split_column:
        return _by_column(values, column, labels, seed=seed)
    if options.split_time:
        return _by_time(values, column)
    return _by_group(values, column, seed=seed)


def looks_like_splits(table: pa.Table) -> str | None:
    """A column that seems to say which rows train and test, if there is one."""
    for name in table.column_names:
        if pa.types.is_string(table[name].type):
            texts = pc.unique(table[name])
            if 1 < len(texts) <= len(NAMES) and {
                str(text).strip().lower() for text in texts.to_pylist()
            } <= set(NAMES):
                return name
    return None


def hold_out(rows: np.ndarray, labels: np.ndarray | None, *, seed: int) -> dict[str, np.ndarray]:
    """Training rows, of which a fifth is to validate: {"train", "validation"}, row numbers."""
    fractions = {"train": 1 - VALIDATION_OF_TRAIN, "validation": VALIDATION_OF_TRAIN}
    of_rows = None if labels is None else labels[rows]
    places = split_rows(len(rows), fractions=fractions, seed=seed, labels=of_rows)
    return {name: rows[chosen] for name, chosen in places.items()}


def named_splits(values: pa.ChunkedArray, column: str) -> np.ndarray:
    """ "train", "validation" or "test" for each row [n].

    Raises:
        DataError: the column holds something else.
    """
    if not pa.types.is_string(values.type):
        raise DataError(
            f"The column '{column}' is of type {values.type}; expected train, validation or test."
        )
    different = values.combine_chunks().dictionary_encode()
    values_found = different.dictionary.to_pylist()
    known = [NAMES.get(text.strip().lower()) for text in values_found]
    if values.null_count or None in known:
        wrong = "nothing" if values.null_count else repr(values_found[known.index(None)])
        raise DataError(f"The column '{column}' holds {wrong}; expected train, validation or test.")
    return np.array(known)[different.indices.to_numpy(zero_copy_only=False)]


def _by_column(
    values: pa.ChunkedArray, column: str, labels: np.ndarray | None, *, seed: int
) -> dict[str, np.ndarray]:
    names = named_splits(values, column)
    splits = {split: np.flatnonzero(names == split) for split in FRACTIONS}
    for needed in ("train", "test"):
        if len(splits[needed]) == 0:
            raise DataError(f"The column '{column}' gives no row to '{needed}'.")
    if len(splits["validation"]) == 0:
        splits |= hold_out(splits["train"], labels, seed=seed)
    return splits


def _moments(texts: np.ndarray, column: str) -> np.ndarray:
    """datetime64[s] [n]. Texts are not sorted as such: "2011-01-31 13:00" is later than
    "2011-01-31T09:00"; and others, 31/01/2011 for one, do not rise with time at all."""
    numbers = days(texts)
    bad = np.flatnonzero(np.isnan(numbers))
    if len(bad):
        raise DataError(
            f"The column '{column}' holds {texts[bad[0]]!r}; to split by time, expected dates "
            "such as 2011-01-31 or 2011-01-31T13:00:00, or numbers that rise with time."
        )
    return np.rint(numbers * 86_400).astype("datetime64[s]")


def _by_time(values: pa.ChunkedArray, column: str) -> dict[str, np.ndarray]:
    """The newest fifth tests, a fifth of the rest validates; rows of one time stay together."""
    is_text = pa.types.is_string(values.type)
    if not (is_date(values.type) or is_number(values.type) or is_text):
        raise DataError(
            f"The column '{column}' is of type {values.type}; expected dates, or numbers that "
            "rise with time."
        )
    coded = values.combine_chunks().dictionary_encode()
    given = coded.dictionary.to_numpy(False)
    different, places = np.unique(
        _moments(given, column) if is_text else given, return_inverse=True
    )
    times = places[coded.indices.to_numpy()]
    if len(different) < len(FRACTIONS):
        raise DataError(
            f"The column '{column}' has {len(different)} different times; expected "
            f"{len(FRACTIONS)} or more, one at least for each of training, validation and test."
        )
    # How many rows are older than each time: where the rows can be divided.
    older = np.cumsum([0, *np.bincount(times)[:-1]])
    test = 2 + _nearest(older[2:], (1 - FRACTIONS["test"]) * len(times))
    validation = 1 + _nearest(older[1:test], (1 - VALIDATION_OF_TRAIN) * older[test])
    logger.info(
        "Split by '%s': training before %s, validation before %s, then test.",
        column,
        different[validation],
        different[test],
    )
    return {
        "train": np.flatnonzero(times < validation),
        "validation": np.flatnonzero((times >= validation) & (times < test)),
        "test": np.flatnonzero(times >= test),
    }


def _nearest(numbers: np.ndarray, wanted: float) -> int:
    return int(np.argmin(np.abs(numbers - wanted)))


def _by_group(values: pa.ChunkedArray, column: str, *, seed: int) -> dict[str, np.ndarray]:
    """Whole groups to each split, so that their shares come near FRACTIONS."""
    coded = values.combine_chunks().dictionary_encode()
    groups = coded.indices.to_numpy()
    count = len(coded.dictionary)
    if count < len(FRACTIONS):
        raise DataError(
            f"The column '{column}' has {count} groups; expected {len(FRACTIONS)} or more, one "
            "at least for each of training, validation and test."
        )
    sizes = np.bincount(groups, minlength=count)
    order = np.random.default_rng(seed).permutation(count)
    # The largest first, each to the split that is filled least: groups of every size are shared
    # out alike, and a huge one trains.
    held = dict.fromkeys(("train", "test", "validation"), 0)
    chosen = np.empty(count, object)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        name = min(held, key=lambda split: held[split] / FRACTIONS[split])
        chosen[group] = name
        held[name] += int(sizes[group])
    return {name: np.flatnonzero((chosen == name)[groups]) for name in FRACTIONS}
