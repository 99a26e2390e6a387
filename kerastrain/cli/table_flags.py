"""The flags that say how a table is read, divided and used: the fields of TableOptions.

table_flags.define(FLAGS)
options = table_flags.table_options(values)
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from absl import flags

from kerastrain.errors import UsageError
from kerastrain.options import TABLE_LOCATIONS, TASKS, TableOptions


def define(values: flags.FlagValues) -> None:
    """Adds them to a command's flags."""
    texts = {
        "schema": "A schema file, as a run writes it and you may have edited it. Default: "
        "inferred from the table.",
        "positive": "Of two classes the one that is looked for, as average_precision counts. "
        "Default: 1, yes, true or +; else the rarer.",
        "weights": "A column of numbers: how much each row counts.",
        "split_column": "A column that says train, validation or test for each row. Default: "
        "the rows are split by chance, 64/16/20.",
        "split_time": "A column by which the newest fifth of the rows tests, and those before "
        "them validate.",
        "split_group": "A column whose equal values stay together in one split.",
        "validation_data": "A table of the validation rows (with --test_data).",
        "test_data": "A table of the test rows; --data then holds no test rows.",
        "separator": "What separates the values of a CSV file, 'space' and 'tab' by name. "
        "Default: detected.",
        "encoding": "The encoding of a CSV file, such as latin-1. Default: utf-8.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_list("ignore_columns", [], "Columns not to learn from: a,b", flag_values=values)
    flags.DEFINE_enum(
        "task",
        None,
        list(TASKS),
        "What the target is. Default: decided from its values.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "quantiles",
        [],
        "Predict these quantiles of the target: 0.1,0.5,0.9",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "balance", False, "Every class counts the same in training.", flag_values=values
    )
    flags.DEFINE_boolean(
        "header",
        None,
        "Whether the first line of a CSV file names the columns. Default: detected.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "stream",
        None,
        "Read the table in batches and train from disk. Default: when it is too large for half "
        "of the memory.",
        flag_values=values,
    )


def table_options(values: flags.FlagValues) -> TableOptions:
    """What the flags say; those of a command that lacks some are the defaults.

    Raises:
        UsageError: a quantile is no number.
        OptionsError: a value is out of range.
    """
    names = [field.name for field in dataclasses.fields(TableOptions)]
    given: dict[str, Any] = {
        name: values[name].value
        for name in names
        if name in values and values[name].value is not None
    }
    for name in TABLE_LOCATIONS:
        # The shell leaves the ~ of --schema=~/x.json to us.
        if given.get(name):
            given[name] = os.path.expanduser(given[name])
    if "quantiles" in given:
        given["quantiles"] = tuple(map(_level, given["quantiles"]))
    named = {"space": " ", "tab": "\t", "\\t": "\t"}
    if "separator" in given:
        given["separator"] = named.get(given["separator"], given["separator"])
    return TableOptions(**given)


def _level(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--quantiles holds '{text}'; expected numbers, as in --quantiles=0.1,0.5,0.9."
        ) from None
