"""Permutation importance of a published SavedModel whose answers are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kerastrain.data.source import Data, Examples, Regression
from kerastrain.errors import DataError, ExportError, OptionsError
from kerastrain.export.importance import alike_columns, permutation_importance

ROWS = 300


class Linear(tf.Module):
    """3 · a + b, and 10 more where the city is "x"; `noise` is taken and not used."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "a"),
            tf.TensorSpec([None], tf.float32, "b"),
            tf.TensorSpec([None], tf.string, "city"),
            tf.TensorSpec([None], tf.float32, "noise"),
        ]
    )
    def serve(self, a, b, city, noise):
        return {"prediction": 3 * a + b + 10 * tf.cast(city == "x", tf.float32) + 0 * noise}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("version")
    module = Linear()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=ROWS).astype(np.float32) for name in ("noise", "b", "a")}
    columns["city"] = rng.choice(np.array(["x", "y"], object), ROWS)
    targets = (
        3 * columns["a"] + columns["b"] + 10 * (columns["city"] == "x") + rng.normal(size=ROWS)
    )
    split = Examples(columns, targets.astype(np.float32)[:, None])
    return Data(train=split, validation=split, task=Regression())


def test_columns_are_sorted_by_what_the_metric_loses_without_them(folder, data):
    found = permutation_importance(folder, data)
    assert [column.name for column in found.columns] == ["city", "a", "b", "noise"]
    assert found.metric == "rmse"
    assert found.baseline == pytest.approx(1.0, abs=0.1)
    by_name = {column.name: column for column in found.columns}
    # Var(shuffled − own) = 2 Var: rmse² = 1 + 2 · 3² for a.
    assert by_name["a"].mean == pytest.approx(np.sqrt(1 + 2 * 9) - 1, rel=0.1)
    assert 0 < by_name["a"].std < 0.5
    assert (by_name["noise"].mean, by_name["noise"].std) == (0, 0)


def test_the_same_seed_gives_the_same_numbers_and_another_column_changes_none(folder, data):
    found = permutation_importance(folder, data, repeats=2)
    again = permutation_importance(folder, data, repeats=2)
    assert found == again
    assert permutation_importance(folder, data, repeats=2, seed=1) != found
    more = dict(data.validation.inputs, other=np.zeros(ROWS, np.float32))
    split = Examples(dict(reversed(more.items())), data.validation.targets)
    reordered = permutation_importance(
        folder, dataclasses.replace(data, validation=split), repeats=2
    )
    assert reordered.columns == found.columns


def test_small_batches_change_nothing(folder, data, monkeypatch):
    found = permutation_importance(folder, data)
    monkeypatch.setattr("kerastrain.export.asking.TABLE_ROWS_AT_ONCE", 128)
    assert permutation_importance(folder, data) == found


def test_where_more_is_better_worse_is_less(folder, data):
    found = permutation_importance(folder, data, metric_name="r2", rows=100, repeats=1)
    assert found.rows == 100
    assert found.columns[0].mean > 0.5 and found.columns[0].std == 0


def test_rows_without_weight_count_for_nothing(folder, data):
    weights = np.zeros(ROWS, np.float32)
    weights[:150] = 1
    wrong = data.validation.targets + 1000 * (weights[:, None] == 0)
    split = Examples(data.validation.inputs, wrong.astype(np.float32), weights)
    found = permutation_importance(folder, dataclasses.replace(data, validation=split))
    assert found.baseline < 2


def test_columns_that_rank_the_rows_alike_are_named():
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    holes = np.where(rng.random(500) < 0.02, np.nan, -np.exp(a))
    columns = {
        "a": a,
        "falling": holes,
        "other": rng.normal(size=500),
        "constant": np.ones(500),
        "empty": np.full(500, np.nan),
        "city": np.array(["x"] * 500, object),
    }
    ((first, second, rho),) = alike_columns(columns)
    assert (first, second) == ("a", "falling")
    assert -1 <= rho < -0.9


def test_rows_without_named_columns_are_refused(folder, data):
    images = Examples(np.zeros((4, 8, 8)), np.zeros(4))
    with pytest.raises(DataError, match="without named columns"):
        permutation_importance(folder, Data(train=images, validation=images, task=Regression()))
    with pytest.raises(DataError, match="no validation split"):
        permutation_importance(folder, Data(train=images, task=Regression()))


def test_data_that_do_not_fit_the_model_are_refused(folder, data):
    fewer = {n: v for n, v in data.validation.inputs.items() if n != "city"}
    split = Examples(fewer, data.validation.targets)
    with pytest.raises(DataError, match="takes the input 'city'"):
        permutation_importance(folder, dataclasses.replace(data, validation=split))
    with pytest.raises(DataError, match="name a task"):
        permutation_importance(folder, dataclasses.replace(data, task=None))


def test_settings_that_mean_nothing_are_told(folder, data, tmp_path):
    with pytest.raises(OptionsError, match="at least 2 rows"):
        permutation_importance(folder, data, rows=1)
    with pytest.raises(OptionsError, match=r"no metric 'rms'.*Did you mean 'rmse'"):
        permutation_importance(folder, data, metric_name="rms")
    with pytest.raises(ExportError, match="cannot be loaded"):
        permutation_importance(tmp_path, data)
