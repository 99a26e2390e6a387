"""From a file to encoded splits; and what is said when that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.loading import load_table_data
from kerastrain.data.tables.schema import Schema
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TrainOptions

N = 200


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """200 rows: numbers with gaps, text with gaps, three classes, a price."""
    random = np.random.default_rng(0)
    kind = random.choice(["iris", "rose", "tulip"], N, p=[0.5, 0.3, 0.2])
    height = random.normal(30, 5, N).round(2)
    lines = [
        f"{'' if row % 9 == 0 else height[row]},{'?' if row % 7 == 0 else 'abc'[row % 3]},"
        f"{kind[row]},{height[row] * 2:.3f}"
        for row in range(N)
    ]
    path = tmp_path_factory.mktemp("data") / "flowers.csv"
    path.write_text("\n".join(["height,soil type,kind,price", *lines]))
    return str(path)


def load(path, target, **options):
    return load_table_data(TrainOptions(data=str(path), target=target, **options))


def test_classes_become_indices_and_every_split_holds_them(flowers):
    data = load(flowers, "kind")
    assert data.task == Classification(("iris", "rose", "tulip"))
    assert (len(data.train), len(data.validation), len(data.test)) == (128, 32, 40)
    for split in (data.train, data.validation, data.test):
        assert split.targets.dtype == np.int32 and split.targets.shape == (len(split),)
        assert split.inputs["numbers"].dtype == np.float32
        assert split.inputs["categories"].dtype == np.int32
        assert set(split.targets.tolist()) == {0, 1, 2}


def test_targets_belong_to_their_rows(flowers):
    data = load(flowers, "kind")
    lines = Path(flowers).read_text().splitlines()[1:]
    kinds = [lines[row].split(",")[2] for row in data.split_rows["test"]]
    assert [data.task.classes[index] for index in data.test.targets] == kinds
    prices = load(flowers, "price")
    expected = [float(lines[row].split(",")[3]) for row in prices.split_rows["train"]]
    np.testing.assert_allclose(prices.train.targets[:, 0], expected, rtol=1e-6)


def test_regression_targets_have_the_shape_of_the_prediction(flowers):
    data = load(flowers, "price")
    assert data.task == Regression("price")
    assert data.train.targets.shape == (128, 1) and data.train.targets.dtype == np.float32


def test_test_rows_through_the_encoder_are_the_test_inputs(flowers):
    data = load(flowers, "kind")
    assert data.test_rows["soil type"].dtype == object
    assert "" in data.test_rows["soil type"] and np.isnan(data.test_rows["height"]).any()
    for rows, split in ((data.test_rows, data.test), (data.validation_rows, data.validation)):
        encoded = data.encoder({name: tf.constant(values) for name, values in rows.items()})
        np.testing.assert_allclose(encoded["numbers"], split.inputs["numbers"], atol=1e-6)
        np.testing.assert_array_equal(encoded["categories"], split.inputs["categories"])


def test_the_same_options_give_the_same_data_and_another_seed_another_split(flowers):
    first, second = load(flowers, "kind", seed=3), load(flowers, "kind", seed=3)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != load(flowers, "kind", seed=4).fingerprint()


def test_csv_and_parquet_of_the_same_table_give_the_same_data(flowers, tmp_path):
    from kerastrain.data.tables.reading import read_table

    path = tmp_path / "flowers.parquet"
    pq.write_table(read_table(flowers), path)
    assert load(path, "kind").fingerprint() == load(flowers, "kind").fingerprint()


def test_only_training_rows_teach_the_encoder(tmp_path):
    def data_with(test_height):
        path = tmp_path / f"{test_height}.csv"
        test = set(rows["test"].tolist()) if rows else set()
        heights = [test_height if row in test else row % 13 for row in range(N)]
        lines = [f"{height},{row % 2}" for row, height in enumerate(heights)]
        path.write_text("\n".join(["height,y", *lines]))
        return load(path, "y")

    rows = {}
    rows = data_with(1).split_rows
    np.testing.assert_array_equal(
        data_with(5).train.inputs["numbers"], data_with(500).train.inputs["numbers"]
    )


def test_bool_targets_and_integer_classes_are_indexed(tmp_path):
    path = tmp_path / "t.parquet"
    flags = [row % 3 == 0 for row in range(N)]
    grades = [3 + 2 * (row % 3) for row in range(N)]
    pq.write_table(
        pa.table({"a": [row % 7 for row in range(N)], "flag": flags, "grade": grades}), path
    )
    flag, grade = load(path, "flag"), load(path, "grade")
    assert flag.task.classes == ("false", "true") and grade.task.classes == (3, 5, 7)
    assert flag.test.targets.tolist() == [int(flags[row]) for row in flag.split_rows["test"]]
    assert grade.test.targets.tolist() == [row % 3 for row in grade.split_rows["test"]]


def test_two_whole_floats_and_huge_integers_are_classes_without_rounding(tmp_path):
    floats = [0.0, 1.0, -0.0, 1.0] * (N // 4)
    huge = [2**60, 2**60 + 1] * (N // 2)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [row % 7 for row in range(N)], "f": floats, "h": huge}), path)
    as_floats, as_huge = load(path, "f"), load(path, "h")
    assert as_floats.task.classes == (0, 1)
    assert as_huge.task.classes == (2**60, 2**60 + 1)
    for data in (as_floats, as_huge):
        assert data.test.targets.tolist() == [row % 2 for row in data.split_rows["test"]]


def test_the_description_is_json_and_holds_the_schema(flowers):
    description = load(flowers, "kind").description
    restored = json.loads(json.dumps(description))
    schema = Schema.from_json(restored["schema"])
    assert schema.sha256() == restored["schema_sha256"]
    assert restored["rows"] == N and restored["columns"] == ["height", "soil type", "price"]


def test_real_census_rows_keep_their_classes_and_gaps(real_data):
    data = load(real_data / "tabular" / "adult.parquet", "income")
    assert data.task == Classification(("<=50K", ">50K"))
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 48842
    assert "" in data.test_rows["workclass"]
    assert data.train.targets.mean() == pytest.approx(data.test.targets.mean(), abs=0.001)


# What cannot be loaded.


def test_missing_data_names_the_flag():
    with pytest.raises(OptionsError, match="--data is missing"):
        load_table_data(TrainOptions())


def test_a_missing_target_lists_the_columns(flowers):
    with pytest.raises(OptionsError, match="--target is missing; .* height, soil type, kind"):
        load_table_data(TrainOptions(data=flowers))


def test_a_misspelt_target_is_suggested(flowers):
    with pytest.raises(DataError, match="no column 'kinds'.*Did you mean 'kind'"):
        load(flowers, "kinds")


def test_too_few_rows_are_refused(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("a,y\n1,0\n2,1\n3,0\n")
    with pytest.raises(DataError, match="has 3 rows; expected at least 10"):
        load(path, "y")
