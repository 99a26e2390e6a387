from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow as tf

from kerastrain.cli import predict
from kerastrain.cli.command_line import parse_flags
from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import raw_rows
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.errors import DataError, ExportError, UsageError
from kerastrain.export import manifest

SCHEMA = Schema(
    (Column("age", "age", "number", "float32"), Column("sex", "sex", "category", "string")),
    "income",
    Classification(("high", "low")),
)


def people(count, *, older=0, seed=0):
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(count),
            "age": random.integers(18, 80, count) + older,
            "sex": random.choice(["f", "m"], count),
        }
    )


def save(folder, recorded):
    """A version folder whose model says "high" from 50 on."""
    module = tf.Module()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "age"),
            tf.TensorSpec([None], tf.string, "sex"),
        ]
    )
    def answer(age, sex):
        high = tf.where(age >= 50, 0.75, 0.25)
        label = tf.where(age >= 50, "high", "low")
        return {"probabilities": tf.stack([high, 1 - high], 1), "label": label}  # fmt: skip

    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})
    manifest.write_manifest(folder, {"data": recorded})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    statistics = table_statistics(raw_rows(people(2000), SCHEMA), SCHEMA)
    save(folder / "3", {"schema": SCHEMA.to_json(), "statistics": statistics})
    return folder


@pytest.fixture
def new(tmp_path, monkeypatch):
    """A file of rows like those of training, in the current folder."""
    monkeypatch.chdir(tmp_path)
    pyarrow.parquet.write_table(people(500, seed=1), "new.parquet")


def run_predict(*arguments):
    return predict.run(parse_flags("predict", predict.FLAGS, arguments))


@pytest.mark.usefixtures("new")
def test_it_says_how_many_rows_it_predicted_and_as_what(model, capsys):
    given = [f"--model={model}", "--input=new.parquet", "--output=answers.csv"]
    assert run_predict(*given) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"500 rows predicted by {model / '3'}: answers.csv"
    answers = pyarrow.csv.read_csv("answers.csv")
    table = people(500, seed=1)
    high = np.mean(table["age"].to_numpy() >= 50)
    assert sorted(second.removeprefix("label: ").split(", ")) == sorted(
        [f"high {high:.1%}", f"low {1 - high:.1%}"]
    )
    assert answers["id"] == table["id"]
    assert answers.column_names == [
        "id", "label", "probability", "probability_high", "probability_low"
    ]  # fmt: skip


@pytest.mark.usefixtures("new")
def test_drift_is_a_table_worst_first_and_a_file(model, capsys, caplog):
    pyarrow.parquet.write_table(people(500, older=20), "older.parquet")
    given = [f"--model={model}", "--input=older.parquet", "--output=answers.parquet"]
    run_predict(*given, "--drift", "--drift_report=drift.json", "--keep=none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "drift of 500 rows against the 2,000 of training"
    assert lines[3].split()[:3] == ["column", "verdict", "PSI"]
    assert lines[4].split()[:2] == ["age", "large"]
    assert lines[5].split()[:2] == ["sex", "stable"]
    assert lines[-1] == "drift report: drift.json"
    with open("drift.json") as file:
        report = json.load(file)
    assert [column["column"] for column in report["columns"]] == ["age", "sex"]
    (warning,) = caplog.messages
    assert "outside of training's range, 18 to 79" in warning


@pytest.mark.usefixtures("new")
def test_without_recorded_statistics_there_is_no_drift_and_that_is_said(model, tmp_path, capsys):
    save(tmp_path / "bare", {"schema": SCHEMA.to_json()})
    given = ["--model=bare", "--input=new.parquet", "--output=answers.csv"]
    for asked in ("--drift", "--drift_report=drift.json"):
        with pytest.raises(ExportError, match="no statistics recorded"):
            run_predict(*given, asked)
    assert not os.path.exists("answers.csv")
    assert run_predict(*given) == 0
    assert "no statistics recorded" in capsys.readouterr().out


@pytest.mark.usefixtures("new")
def test_files_are_not_replaced_without_being_told_to(model):
    given = [f"--model={model}", "--input=new.parquet", "--output=answers.csv"]
    run_predict(*given)
    with pytest.raises(UsageError, match="--output=answers.csv is there already"):
        run_predict(*given)
    with open("drift.json", "w") as file:
        file.write("{}")
    with pytest.raises(UsageError, match="--drift_report=drift.json is there already"):
        run_predict(*given, "--overwrite=false", "--drift_report=drift.json")
    assert run_predict(*given, "--overwrite", "--drift_report=drift.json") == 0


@pytest.mark.parametrize("lacking", ["model", "input", "output"])
def test_a_flag_that_is_needed_is_named(lacking):
    given = [f"--{name}=x" for name in ("model", "input", "output") if name != lacking]
    with pytest.raises(UsageError, match=f"--{lacking} is missing"):
        run_predict(*given)


def test_a_batch_has_rows():
    with pytest.raises(UsageError, match="--batch_rows=0; expected 1 or more"):
        run_predict("--model=x", "--input=x", "--output=x", "--batch_rows=0")


@pytest.mark.usefixtures("new")
def test_input_that_is_not_there_is_an_error(model):
    given = [f"--model={model}", "--output=answers.csv"]
    with pytest.raises(DataError, match=r"news.parquet"):
        run_predict(*given, "--input=news.parquet")


def test_where_there_is_no_terminal_a_line_comes_every_ten_seconds(capsys):
    now = iter([0.0, 4.0, 10.5, 12.0, 21.0])
    show = predict.progress_lines(lambda: next(now))
    for rows in (1000, 2100, 3000, 4200):
        show(rows, 10_000 if rows < 4000 else None)
    assert capsys.readouterr().out.splitlines() == [
        "2,100 of 10,000 rows, 200 a second",
        "4,200 rows, 200 a second",
    ]


def test_mistakes_are_told_without_importing_tensorflow(tmp_path):
    code = (
        "import sys; from kerastrain.cli.main import main; "
        "status = main(['predict', '--model=.', '--input=x.csv', '--output=y.csv']); "
        "assert status == 1 and not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "holds no published model" in done.stderr


@pytest.mark.usefixtures("new")
def test_the_command_writes_nothing_else(model, run_kerastrain):
    given = [f"--model={model}", "--input=new.parquet", "--output=answers.parquet"]
    done = run_kerastrain("predict", *given)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # A machine that takes more than a second shows how far it is.
    said = [line for line in done.stdout.splitlines() if " a second" not in line]
    assert len(said) == 2
    with_text = people(500).set_column(1, "age", pa.array(["old"] * 500))
    pyarrow.parquet.write_table(with_text, "text.parquet")
    done = run_kerastrain("predict", given[0], "--input=text.parquet", "--output=bad.parquet")
    assert done.returncode == 1
    assert done.stderr.startswith("kerastrain: error: Column 'age' holds 'old' in row 1 ")
    assert not os.path.exists("bad.parquet")
