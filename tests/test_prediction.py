from __future__ import annotations

import dataclasses
import json
import os
import shutil

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from checked_here import check_here
from keras import ops

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.tables.columns import raw_rows
from kerastrain.data.tables.drift import drift_report
from kerastrain.data.tables.reading import TableFormat
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.errors import DataError, ExportError, UsageError
from kerastrain.export.manifest import NAME
from kerastrain.export.publishing import publish
from kerastrain.prediction import find_model, predict_file

COLUMNS = (
    Column("age", "age", "number", "float32"),
    Column("home town", "home town", "category", "string"),
)


def people(count, seed=0, **others):
    random = np.random.default_rng(seed)
    towns = random.choice(["Bonn", "Kiel", "Ulm"], count)
    return pa.table(
        {
            "id": [f"{place:04}" for place in range(count)],
            "age": random.integers(18, 80, count),
            "home town": towns,
            "income": random.choice(["high", "low"], count),
            **others,
        }
    )


def published(base, task):
    """A model as training publishes one, with an encoder of its own."""
    schema = Schema(COLUMNS, "income", task)
    rows = raw_rows(people(100), schema)
    inputs = [
        keras.Input((), dtype="float32", name="age"),
        keras.Input((), dtype="string", name="home town"),
    ]
    index = keras.layers.StringLookup(vocabulary=["Bonn", "Kiel", "Ulm"], name="town_index")
    age = ops.where(ops.isnan(inputs[0]), 0.0, inputs[0] / 100)[:, None]
    encoded = ops.concatenate([age, ops.one_hot(index(inputs[1]), 4, dtype="float32")], -1)
    encoder = keras.Model(inputs, encoded, name="encoder")
    features = np.asarray(encoder([ops.convert_to_tensor(rows[c.input]) for c in COLUMNS]))
    keras.utils.set_random_seed(1)
    is_classes = isinstance(task, Classification)
    units = len(task.classes) if is_classes else 1
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(units)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if is_classes else "mse"
    model.compile(loss=loss)
    targets = np.arange(100) % 3 % units if is_classes else np.ones((100, 1), np.float32)
    data = Data(
        Examples(features, targets),
        test=Examples(features, targets),
        task=task,
        encoder=encoder,
        test_rows=rows,
    )
    recorded = {"schema": schema.to_json(), "statistics": table_statistics(rows, schema)}
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        publish(model, data, base=base, facts={"data": recorded})
    return lambda table: np.asarray(
        model(encoder([ops.convert_to_tensor(v) for v in raw_rows(table, schema).values()]))
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """(folder of versions, what the live model answers to a table)."""
    base = tmp_path_factory.mktemp("classifier") / "people"
    return base, published(base, Classification(("high", "low", "none")))


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    base = tmp_path_factory.mktemp("regressor") / "people"
    return base, published(base, Regression("income"))


def predicted(model, table, folder, *, name="new.parquet", **settings):
    """The answers to a table, and what was said of them."""
    source, output = folder / name, folder / "answers.parquet"
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, source)
    else:
        pyarrow.parquet.write_table(table, source)
    done = predict_file(find_model(model), source, output, overwrite=True, **settings)
    answers = pyarrow.parquet.read_table(output)
    assert done.rows == answers.num_rows
    assert done.columns == answers.column_names
    return answers, done


def edited(base, folder, edit):
    """A copy of the newest version with an edited manifest."""
    shutil.copytree(base / "1", folder / "1")
    manifest = json.loads((folder / "1" / NAME).read_text())
    edit(manifest)
    (folder / "1" / NAME).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("name", ["new.parquet", "new.csv"])
@pytest.mark.parametrize("batch_rows", [7, 100, 8192])
def test_every_row_gets_the_live_models_answer(classifier, tmp_path, name, batch_rows):
    base, live = classifier
    table = people(100, seed=1)
    answers, done = predicted(base, table, tmp_path, name=name, batch_rows=batch_rows)
    assert done.columns == [
        "id", "income", "label", "probability",
        "probability_high", "probability_low", "probability_none",
    ]  # fmt: skip
    expected = keras.ops.softmax(live(table)).numpy()
    each = np.stack([answers[name] for name in done.columns[-3:]], 1)
    np.testing.assert_allclose(each, expected, atol=1e-5)
    labels = np.array(["high", "low", "none"])[each.argmax(1)]
    assert answers["label"].to_pylist() == labels.tolist()
    np.testing.assert_array_equal(answers["probability"], each.max(1))
    assert done.summary == dict(
        sorted(zip(*np.unique(labels, return_counts=True), strict=True), key=lambda i: -i[1])
    )
    assert answers["id"] == table["id"]


def test_a_number_is_predicted_as_such(regressor, tmp_path):
    base, live = regressor
    table = people(50, seed=1)
    answers, done = predicted(base, table, tmp_path, keep="none")
    assert done.columns == ["prediction"]
    np.testing.assert_allclose(answers["prediction"], live(table)[:, 0], atol=1e-5)
    assert done.summary["mean"] == pytest.approx(live(table).mean(), abs=1e-4)
    assert done.summary["least"] == pytest.approx(live(table).min(), abs=1e-4)


def test_missing_and_unseen_values_are_predicted_and_told(classifier, tmp_path):
    base, live = classifier
    table = people(20, seed=1).set_column(2, "home town", pa.array(["Rome", None] * 10))
    table = table.set_column(1, "age", pa.array([None, 130, *[30] * 18]))
    answers, done = predicted(base, table, tmp_path, batch_rows=8)
    expected = keras.ops.softmax(live(table)).numpy()
    np.testing.assert_allclose(answers["probability_low"], expected[:, 1], atol=1e-5)
    assert done.counts.remarks() == [
        "Column 'age': of 20 rows, 1 value is outside of training's range, 18 to 79 (row 2: 130); "
        "1 value is missing, none was in training.",
        "Column 'home town': of 20 rows, 10 values are not among those of training (row 1: "
        "'Rome'); 10 values are missing, none was in training.",
    ]
    report = {column["column"]: column for column in drift_report(done.counts)["columns"]}
    assert report["home town"]["verdict"] == "large"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"age": ["30"] * 8 + ["old"] + ["30"]}, "'age' holds 'old' in row 9 "),
        ({"age": [30.0] * 8 + [np.inf, 1]}, "'age' holds inf in row 9 "),
        ({"home town": [1.5] * 10}, "'home town' has the type double"),
    ],
)
def test_bad_values_are_an_error_and_nothing_is_written(classifier, tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        predicted(classifier[0], people(10, **changed), tmp_path, batch_rows=4)
    assert os.listdir(tmp_path) == ["new.parquet"]


def test_text_among_the_numbers_of_a_csv_is_an_error(classifier, tmp_path):
    table = people(10, age=["30"] * 8 + ["old"] + ["30"])
    with pytest.raises(DataError, match=r"(?s)age.*old"):
        predicted(classifier[0], table, tmp_path, name="new.csv", batch_rows=4)
    assert os.listdir(tmp_path) == ["new.csv"]


def test_how_a_csv_file_is_written_can_be_said(classifier, tmp_path):
    table = people(4).select(["age", "home town"])
    lines = [f"{row['age']};{row['home town']}" for row in table.to_pylist()]
    (tmp_path / "new.txt").write_text("age;home town\n" + "\n".join(lines), encoding="utf-16")
    predict_file(
        find_model(classifier[0]),
        tmp_path / "new.txt",
        tmp_path / "answers.csv",
        table_format=TableFormat(separator=";", encoding="utf-16"),
    )
    expected, _ = predicted(classifier[0], table, tmp_path)
    answers = pyarrow.csv.read_csv(tmp_path / "answers.csv")
    assert answers["label"] == expected["label"]


def test_a_missing_column_is_an_error_and_nothing_is_written(classifier, tmp_path):
    table = people(10).rename_columns(["id", "Age", "home town", "income"])
    with pytest.raises(DataError, match=r"lacks 1 of the 2 .* 'age' \(Did you mean 'Age'\?\)"):
        predicted(classifier[0], table, tmp_path)
    assert os.listdir(tmp_path) == ["new.parquet"]


def test_an_input_without_rows_is_an_error(classifier, tmp_path):
    with pytest.raises(DataError, match="no rows"):
        predicted(classifier[0], people(10).slice(0, 0), tmp_path)
    assert os.listdir(tmp_path) == ["new.parquet"]


def test_categories_that_look_like_numbers_stay_text(classifier, tmp_path):
    table = people(3, **{"home town": ["01", "02", "1"]})
    _, done = predicted(classifier[0], table, tmp_path, name="new.csv")
    assert "(row 1: '01')" in done.counts.remarks()[0]


def test_kept_columns_are_as_they_were(classifier, tmp_path):
    table = people(10, label=["x"] * 10)
    answers, _ = predicted(classifier[0], table, tmp_path, keep="all")
    assert answers.column_names[:5] == ["id", "age", "home town", "income", "input_label"]
    assert answers["age"] == table["age"]
    assert answers["input_label"].to_pylist() == ["x"] * 10


@pytest.mark.parametrize("output", ["answers.csv", "answers.parquet"])
def test_what_is_only_kept_is_written_as_it_is_in_the_csv_file(regressor, tmp_path, output):
    ids = ["00123", "12345678901234567890123", "1.10", "true", "1e3"]
    (tmp_path / "new.csv").write_text(
        "id,age,home town,income\n" + "".join(f"{id_},30,Bonn,2.50\n" for id_ in ids)
    )
    predict_file(find_model(regressor[0]), tmp_path / "new.csv", tmp_path / output)
    if output.endswith("csv"):
        texts = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
        answers = pyarrow.csv.read_csv(tmp_path / output, convert_options=texts)
    else:
        answers = pyarrow.parquet.read_table(tmp_path / output)
    assert answers["id"].to_pylist() == ids
    assert answers["income"].to_pylist() == [2.5] * 5


def test_the_same_values_get_the_same_answers_from_csv_and_parquet(classifier, tmp_path):
    towns = ["Bonn", " Bonn ", "NA", "?", "null", " ", "Kiel", None]
    table = people(8, **{"home town": towns})
    (answers, done), (others, counted) = (
        predicted(classifier[0], table, tmp_path, name=name) for name in ("n.csv", "n.parquet")
    )
    assert answers == others
    assert done.counts.remarks() == counted.counts.remarks()
    assert "5 values are missing" in done.counts.remarks()[-1]


def test_the_output_is_not_part_of_the_input(classifier, tmp_path):
    model = find_model(classifier[0])
    pyarrow.parquet.write_table(people(5), tmp_path / "new.parquet")
    with pytest.raises(UsageError, match="is the input itself"):
        predict_file(model, tmp_path / "new.parquet", tmp_path / "new.parquet", overwrite=True)
    with pytest.raises(UsageError, match="is there already"):
        predict_file(model, tmp_path / "new.parquet", tmp_path / "new.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "new.parquet") == people(5)


def test_a_folder_is_read_and_not_written_into(classifier, tmp_path):
    model = find_model(classifier[0])
    (tmp_path / "new").mkdir()
    for place in range(3):
        pyarrow.parquet.write_table(people(5, seed=place), tmp_path / "new" / f"{place}.parquet")
    seen = []
    done = predict_file(
        model, tmp_path / "new", tmp_path / "out.csv", progress=lambda *given: seen.append(given)
    )
    assert done.rows == 15
    assert seen[-1] == (15, 15)
    with pytest.raises(UsageError, match="lies in the folder of the input"):
        predict_file(model, tmp_path / "new", tmp_path / "new" / "out.csv")


def test_the_newest_version_is_taken(classifier, tmp_path):
    base, _ = classifier
    for name in ("2", "10"):
        shutil.copytree(base / "1", tmp_path / "people" / name)
    assert find_model(tmp_path / "people").folder.name == "10"
    assert find_model(tmp_path / "people" / "2").folder.name == "2"


def test_a_work_directory_gives_the_export_of_its_recipe(classifier, tmp_path):
    base, _ = classifier
    shutil.copytree(base, tmp_path / "export" / "tabular")
    assert find_model(tmp_path).folder == tmp_path / "export" / "tabular" / "1"
    shutil.copytree(base, tmp_path / "export" / "other")
    with pytest.raises(ExportError, match="holds 2 models; give one of .*other"):
        find_model(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": "tabular"}')
    assert find_model(tmp_path).folder == tmp_path / "export" / "tabular" / "1"


def test_where_there_is_no_model_it_is_said(tmp_path):
    with pytest.raises(ExportError, match="holds no published model"):
        find_model(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ExportError, match="its run is not finished"):
        find_model(tmp_path)
    (tmp_path / "adult").mkdir()
    with pytest.raises(ExportError, match="Did you mean 'adult'"):
        find_model(tmp_path / "adullt")


def test_a_model_whose_files_were_changed_is_refused(classifier, tmp_path):
    folder = edited(classifier[0], tmp_path, lambda manifest: None)
    with open(folder / "1" / "saved_model.pb", "ab") as file:
        file.write(b"x")
    with pytest.raises(ExportError, match="not the file that was published"):
        find_model(folder)


def test_a_model_that_is_not_for_tables_is_refused(classifier, tmp_path):
    folder = edited(classifier[0], tmp_path, lambda manifest: manifest["data"].pop("schema"))
    with pytest.raises(ExportError, match="was not trained on a table"):
        find_model(folder)


def test_a_schema_of_another_shape_is_told(classifier, tmp_path):
    folder = edited(classifier[0], tmp_path, lambda m: m["data"]["schema"].pop("task"))
    with pytest.raises(ExportError, match="cannot be understood"):
        find_model(folder)


def test_a_model_without_statistics_predicts_and_counts_nothing(classifier, tmp_path):
    folder = edited(classifier[0], tmp_path, lambda m: m["data"].pop("statistics"))
    answers, done = predicted(folder, people(5), tmp_path)
    assert answers.num_rows == 5
    assert done.counts is None
    assert find_model(folder) == dataclasses.replace(
        find_model(classifier[0]), folder=folder / "1", statistics=None
    )
