from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.answers import (
    answer_columns,
    kept_columns,
    kept_types,
    names_beside,
)
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.errors import UsageError

COLUMNS = (
    Column("age", "age", "number", "float32"),
    Column("home town", "home town", "category", "string"),
)


def test_columns_to_keep_are_chosen():
    names = ["id", "age", "home town", "income"]
    schema = Schema(COLUMNS, "income", Classification(("high", "low")))
    assert kept_columns("unused", names, schema) == ["id", "income"]
    assert kept_columns("all", names, schema) == names
    assert kept_columns("none", names, schema) == []
    assert kept_columns("income, id", names, schema) == ["id", "income"]
    assert kept_columns("age", names, schema) == ["age"]
    with pytest.raises(UsageError, match=r"--keep names 'incomes'.* Did you mean 'income'\?"):
        kept_columns("id,incomes", names, schema)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (Classification(("high", "low")), ["id", "income"]),
        (Classification((0, 1)), ["id"]),
        (Regression("income"), ["id"]),
    ],
)
def test_what_is_only_kept_is_text_but_for_a_target_that_is_a_number(task, text):
    types = kept_types(["id", "age", "income"], Schema(COLUMNS, "income", task))
    assert types == dict.fromkeys(text, pa.string())


def test_a_kept_column_with_the_name_of_an_answer_gets_a_prefix_that_is_free():
    kept = ["label", "input_label", "id"]
    assert names_beside(kept, {"label": ...}) == {
        "label": "input_input_label",
        "input_label": "input_label",
        "id": "id",
    }


def test_quantiles_are_columns_of_their_own():
    schema = Schema(COLUMNS, "price", Regression("price", (0.1, 0.5, 0.95)))
    answers = {
        "prediction": np.array([2, 5], np.float32),
        "quantiles": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    }
    columns = answer_columns(answers, schema)
    assert {name: values.to_pylist() for name, values in columns.items()} == {
        "prediction": [2, 5],
        "prediction_q0.1": [1, 4],
        "prediction_q0.5": [2, 5],
        "prediction_q0.95": [3, 6],
    }


@pytest.mark.parametrize("classes", [("no", "yes"), (0, 1)])
def test_classes_give_a_label_and_a_probability_each(classes):
    schema = Schema(COLUMNS, "bought", Classification(classes))
    labels = [str(c).encode() if isinstance(c, str) else c for c in classes]
    answers = {
        "probabilities": np.array([[0.75, 0.25], [0.125, 0.875]], np.float32),
        "label": np.array(labels, object if isinstance(labels[0], bytes) else np.int64),
    }
    columns = answer_columns(answers, schema)
    assert {name: values.to_pylist() for name, values in columns.items()} == {
        "label": list(classes),
        "probability": [0.75, 0.875],
        f"probability_{classes[0]}": [0.75, 0.125],
        f"probability_{classes[1]}": [0.25, 0.875],
    }
