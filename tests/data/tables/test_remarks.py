"""Leaks, imbalance and duplicates: found where they are, and not where they are not."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.columns import plain_table, raw_columns
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.remarks import (
    IMBALANCE,
    duplicate_remark,
    duplicates,
    imbalance,
    leaks,
)
from kerastrain.data.tables.schema import Column, Schema, infer_schema
from kerastrain.data.tables.target import target_values

N = 2000
RANDOM = np.random.default_rng(0)
CLASSES = RANDOM.integers(0, 3, N).astype(np.int32)
PRICES = RANDOM.normal(size=N).astype(np.float32)[:, np.newaxis]


def columns_of(**values):
    """(columns, their schema's columns)"""
    table = plain_table(pa.table(values))
    kinds = {name: "category" if pa.types.is_string(table[name].type) else "number"
             for name in values}  # fmt: skip
    schema = Schema(tuple(Column(n, n, k) for n, k in kinds.items()), "y", Regression("y"))
    return raw_columns(table, schema), schema


def leaking(targets, **values) -> list[str]:
    """The columns that are suspect."""
    columns, schema = columns_of(**values)
    if targets.dtype == np.int32:
        schema = Schema(schema.columns, "y", Classification(("a", "b", "c")))
    return [remark.split("'")[1] for remark in leaks(columns, targets, schema)]


def test_a_column_that_tells_the_class_is_suspect_and_others_are_not():
    assert leaking(
        CLASSES,
        as_text=[["lost", "won", "none"][c] for c in CLASSES],
        as_number=CLASSES * 10 + RANDOM.random(N),
        noise=RANDOM.random(N),
        hint=np.where(RANDOM.random(N) < 0.5, CLASSES, 0),
    ) == ["as_text", "as_number"]


def test_what_is_missing_can_tell_the_class():
    is_known = CLASSES > 0
    targets = is_known.astype(np.int32)
    assert leaking(
        targets,
        boat=[1.0 if known else None for known in is_known],
        body=["found" if known else None for known in is_known],
        number=[7.0 + row % 5 if known else None for row, known in enumerate(is_known)],
    ) == ["boat", "body", "number"]


def test_a_column_that_tells_the_number_is_suspect():
    taxed = PRICES[:, 0] * 1.19 + 5
    assert leaking(PRICES, taxed=taxed, noise=RANDOM.random(N)) == ["taxed"]


def test_a_curve_of_the_number_is_suspect_as_well():
    assert leaking(PRICES, curve=np.exp(PRICES[:, 0])) == ["curve"]


@pytest.mark.parametrize("rows", [32, 50, 200, 1900])
def test_leaks_are_found_in_small_tables_and_noise_is_none(rows):
    random = np.random.default_rng(rows)
    wage = np.exp(random.normal(size=rows))
    flag = random.random(rows) < 0.3
    noise = {f"noise{place}": random.normal(size=rows) for place in range(20)}
    noise |= {f"code{place}": random.integers(0, rows // 6, rows) for place in range(20)}
    noise["zeros"] = np.where(random.random(rows) < 0.7, 0, random.normal(size=rows))
    # The file lies in the order of the target.
    order = np.argsort(wage)
    numbers = {"twice": 2 * wage, "logwage": np.log(wage), "minus": -(wage**3), **noise}
    found = leaking(wage[order, np.newaxis], **{n: v[order] for n, v in numbers.items()})
    assert found == ["twice", "logwage", "minus"]
    classes = {"as_number": flag * 9.0, "as_text": np.where(flag, "won", "lost"),
               "near": flag + random.random(rows) / 2, **noise}  # fmt: skip
    assert leaking(flag.astype(np.int32), **classes) == ["as_number", "as_text", "near"]


def test_a_date_can_tell_the_number():
    days = np.datetime64("2020-01-01") + np.arange(100)
    columns, schema = columns_of(sold=days.astype(str).tolist())
    schema = Schema((Column("sold", "sold", "date"),), "y", schema.task)
    (remark,) = leaks(columns, np.arange(100.0)[:, np.newaxis], schema)
    assert "'sold' alone explains" in remark


@pytest.mark.parametrize(
    ("targets", "few"),
    [
        (np.arange(29.0)[:, np.newaxis], r"\(29 training rows\)"),
        (np.array([0] * 96 + [1] * 4), r"\(100 training rows, 4 not of the largest class\)"),
    ],
)
def test_that_too_few_rows_were_not_looked_at_is_said(targets, few):
    columns, schema = columns_of(copy=targets.reshape(-1))
    if targets.ndim == 1:
        schema = Schema(schema.columns, "y", Classification(("a", "b")))
    (remark,) = leaks(columns, targets, schema)
    assert re.search(f"Whether a column gives 'y' away is not known: too few rows {few}", remark)


def test_values_that_tell_rows_apart_are_no_leak():
    # Each text has hardly a row of its own: it would be known by heart, not predicted from.
    assert leaking(CLASSES, name=[f"{c}{row // 2}" for row, c in enumerate(CLASSES)]) == []


def test_the_remark_names_share_and_remedy():
    columns, schema = columns_of(copy=PRICES[:, 0])
    (remark,) = leaks(columns, PRICES, schema)
    assert "'copy' alone explains" in remark and "of the variance of 'y'" in remark
    assert remark.endswith("--ignore_columns=copy")


def test_degenerate_columns_and_targets_are_no_leak():
    same = np.zeros(N, np.int32)
    values = {"empty": pa.nulls(N, pa.float64()), "one": [3.0] * N, "noise": RANDOM.random(N)}
    assert leaking(same, **values) == []
    assert leaking(np.full((N, 1), 2.5, np.float32), **values) == []
    assert leaking(CLASSES, **values) == []


def test_real_tables_are_not_suspected_but_the_sum_that_is_in_one_is(real_data):
    def suspects(file, target):
        table = read_table(real_data / "tabular" / file)
        schema = infer_schema(table, target)
        targets = target_values(table[target], schema.task)
        return [r.split("'")[1] for r in leaks(raw_columns(table, schema), targets, schema)]

    assert suspects("adult.parquet", "income") == []
    assert suspects("california-housing.csv.gz", "median_house_value") == []
    # The count of all riders is that of casual plus that of registered ones.
    assert suspects("bike-sharing-hour.csv.gz", "cnt") == ["registered"]


# Imbalance.


def schema_of_classes(*classes) -> Schema:
    return Schema((), "y", Classification(classes))


def test_classes_of_very_different_sizes_are_remarked():
    targets = np.array([0] * (IMBALANCE * 5 + 1) + [1] * 5)
    (remark,) = imbalance(targets, schema_of_classes("no", "yes"))
    assert "'no' has 101 training rows, 'yes' has 5" in remark and "--balance" in remark
    assert list(imbalance(targets[1:], schema_of_classes("no", "yes"))) == []


def test_a_class_without_training_rows_is_remarked():
    (remark,) = imbalance(np.zeros(30, np.int32), schema_of_classes("no", "yes"))
    assert "'yes' has 0" in remark


def test_numbers_have_no_classes_to_balance():
    assert list(imbalance(PRICES, Schema((), "y", Regression("y")))) == []


# Duplicates.

SPLITS = {"train": np.arange(0, 4), "validation": np.arange(4, 6), "test": np.arange(6, 8)}


def test_rows_that_equal_a_training_row_are_counted():
    columns, _ = columns_of(
        a=[1.0, 2.0, None, 0.0, 2.0, 2.0, -0.0, None],
        b=["x", "y", None, "z", "y", "x", "z", None],
    )
    assert duplicates(columns, SPLITS) == {"validation": 1, "test": 2}


def test_rare_values_are_not_taken_for_each_other():
    columns, _ = columns_of(name=[f"name {row}" for row in range(8)])
    assert duplicates(columns, SPLITS) == {"validation": 0, "test": 0}


def test_columns_are_not_taken_for_each_other():
    columns, _ = columns_of(a=[1.0, 2.0, 5.0, 5.0, 2.0, 1.0, 3.0, 3.0], b=[2.0, 1.0, *[9.0] * 6])
    assert duplicates(columns, SPLITS)["validation"] == 0
    columns, _ = columns_of(a=[1.0, *[0.0] * 7], b=[2.0, *[0.0] * 3, 1.0, 1.0, 3.0, 3.0])
    assert duplicates(columns, SPLITS) == {"validation": 0, "test": 0}


def test_from_one_row_in_a_hundred_on_it_is_remarked():
    splits = {"train": np.arange(100), "validation": np.arange(200), "test": np.arange(100)}
    assert duplicate_remark({"validation": 1, "test": 0}, splits) is None
    remark = duplicate_remark({"validation": 1, "test": 1}, splits)
    assert remark is not None and remark.startswith("1 of 100 test rows (1.0%) equal a training")


@pytest.mark.parametrize("found", [{"validation": 0, "test": 0}])
def test_no_duplicates_no_remark(found):
    assert duplicate_remark(found, SPLITS) is None
