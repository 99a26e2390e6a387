from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from checked_here import check_here

from kerastrain.cli import evaluate
from kerastrain.errors import DataError, ExportError, UsageError, WorkdirError
from kerastrain.export.manifest import NAME
from kerastrain.export.publishing import publish
from kerastrain.options import TrainOptions
from kerastrain.recipe import load_recipe
from kerastrain.workdir import Workdir, write_json

RECIPE = """
import numpy as np
from pathlib import Path
from kerastrain import Classification, Data, Examples, Recipe

def load_data(options):
    rows = np.load(Path(options.data_dir or ".") / "rows.npy")
    labels = (rows[:, 0] > 0).astype("int64")
    train, test = Examples(rows[:80], labels[:80]), Examples(rows[80:], labels[80:])
    return Data(train=train, test=test, task=Classification(("cold", "warm")))

RECIPE = Recipe(load_data=load_data, build_model=None)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory as training leaves it: run.json and one export."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "weather.py").write_text(RECIPE)
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    (folder / "data").mkdir()
    np.save(folder / "data" / "rows.npy", rows)
    options = TrainOptions(
        recipe=str(folder / "weather.py"), workdir=str(folder / "run"), data_dir=f"{folder}/data"
    )
    data = load_recipe(options.recipe).recipe.load_data(options)
    model = keras.Sequential([keras.Input((3,), name="weather-row"), keras.layers.Dense(1)])
    model.set_weights([np.array([[5.0], [0.0], [0.0]]), np.zeros(1)])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    workdir = Workdir(options.workdir)
    workdir.create()
    record = {
        "recipe": options.recipe,
        "given": options.to_json(),
        "resolved": options.to_json(),
        "data_fingerprint": data.fingerprint(),
    }
    write_json(workdir.run_file, record)
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        publish(model, data, base=workdir.exports / "weather", facts={})
    return workdir


def run_evaluate(*arguments):
    values = evaluate.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["evaluate", *arguments])
    return evaluate.run(values)


def test_json_is_one_line_with_the_metrics_and_the_rest(run, capsys):
    assert run_evaluate(f"--workdir={run}", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    metrics, intervals = found["metrics"], found["intervals"]
    assert metrics["accuracy"] == 1.0
    assert {"accuracy", "loss", "f1_macro", "roc_auc", "average_precision"} < set(metrics)
    assert set(intervals) == set(metrics)
    assert intervals["loss"][0] < metrics["loss"] < intervals["loss"][1]
    counts = found["confusion"]["counts"]
    assert found["confusion"]["classes"] == ["cold", "warm"]
    assert counts[0][1] == counts[1][0] == 0 and counts[0][0] + counts[1][1] == 120
    assert found["calibration"]["event"] == "the class is warm"
    assert sum(each["rows"] for each in found["calibration"]["bins"]) == 120


def test_a_wider_confidence_gives_wider_intervals_and_no_resamples_none(run, capsys):
    widths = []
    for confidence in ("0.5", "0.99"):
        run_evaluate(f"--workdir={run}", "--json", f"--confidence={confidence}")
        low, high = json.loads(capsys.readouterr().out)["intervals"]["loss"]
        widths.append(high - low)
    assert widths[0] < widths[1]
    run_evaluate(f"--workdir={run}", "--json", "--bootstrap=0")
    assert json.loads(capsys.readouterr().out)["intervals"] == {}
    with pytest.raises(UsageError, match="between 0 and 1"):
        run_evaluate(f"--workdir={run}", "--confidence=95")
    with pytest.raises(UsageError, match="number of resamples"):
        run_evaluate(f"--workdir={run}", "--bootstrap=-1")


def test_the_command_writes_nothing_but_that_line(run, run_kerastrain):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = run_kerastrain("evaluate", f"--workdir={run}", "--json", env=environment)
    assert done.returncode == 0
    assert done.stderr == ""
    assert list(json.loads(done.stdout))[:2] == ["metrics", "intervals"]
    assert done.stdout.count("\n") == 1


def test_without_json_a_table_is_shown(run, capsys):
    assert run_evaluate(f"--workdir={run}") == 0
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "95 % interval" in shown
    assert "120 test rows" in shown
    assert "recall" in shown and "100.0%" in shown
    assert "the class is warm" in shown
    page = run.path / "report" / "index.html"
    assert shown.endswith(f"report: {page}\n") and page.exists()


def test_a_folder_that_cannot_be_written_to_is_no_reason_not_to_measure(run, capsys, caplog):
    report = run.path / "report"
    shutil.rmtree(report, ignore_errors=True)
    report.write_text("in the way")
    try:
        assert run_evaluate(f"--workdir={run}", "--bootstrap=0") == 0
    finally:
        report.unlink()
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "report:" not in shown
    assert "The report was not written" in caplog.text


def test_data_may_have_moved(run, tmp_path, capsys):
    (tmp_path / "rows.npy").write_bytes((run.path.parent / "data" / "rows.npy").read_bytes())
    assert run_evaluate(f"--workdir={run}", f"--data_dir={tmp_path}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == 1.0


def test_other_data_are_refused(run, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((200, 3), np.float32))
    with pytest.raises(DataError, match="fingerprint differs"):
        run_evaluate(f"--workdir={run}", f"--data_dir={tmp_path}")


def test_a_changed_export_is_refused(run, tmp_path):
    copy = Workdir(tmp_path / "run")
    (copy.exports / "weather" / "1" / NAME).parent.mkdir(parents=True)
    copy.run_file.write_bytes(run.run_file.read_bytes())
    for name in (NAME, "saved_model.pb"):
        content = (run.exports / "weather" / "1" / name).read_bytes()
        (copy.exports / "weather" / "1" / name).write_bytes(content)
    with pytest.raises(ExportError, match="is missing"):
        run_evaluate(f"--workdir={copy}")


def test_without_a_workdir_it_is_a_usage_error():
    with pytest.raises(UsageError, match="--workdir is missing"):
        run_evaluate()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_a_run_is_named(tmp_path, name):
    with pytest.raises(WorkdirError, match="holds no run"):
        run_evaluate(f"--workdir={tmp_path / name}")


def test_a_run_that_has_exported_nothing_yet_is_named(run, tmp_path):
    (tmp_path / "run.json").write_bytes(run.run_file.read_bytes())
    with pytest.raises(ExportError, match="Nothing is exported yet"):
        run_evaluate(f"--workdir={tmp_path}")


def test_a_run_started_from_python_cannot_load_its_data_again(run, tmp_path):
    record = json.loads(run.run_file.read_text())
    write_json(tmp_path / "run.json", {**record, "recipe": None})
    with pytest.raises(WorkdirError, match="started from Python"):
        run_evaluate(f"--workdir={tmp_path}")


def test_mistakes_are_told_without_importing_tensorflow(tmp_path):
    script = f"""
        import sys
        from kerastrain.cli import evaluate
        values = evaluate.FLAGS
        values(["evaluate", "--workdir={tmp_path}"])
        try:
            evaluate.run(values)
        except evaluate.WorkdirError:
            assert "tensorflow" not in sys.modules and "sklearn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
