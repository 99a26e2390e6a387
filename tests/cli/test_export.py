from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checked_here import check_here

from kerastrain.cli import export
from kerastrain.cli.command_line import parse_flags
from kerastrain.errors import CheckpointError, ExportError, OptionsError, RecipeError, UsageError
from kerastrain.export.asking import load_export
from kerastrain.export.formats import catalog, checking, making, processes
from kerastrain.export.formats.catalog import FORMATS
from kerastrain.export.formats.stage import Stage
from kerastrain.export.manifest import read_manifest
from kerastrain.options import TrainOptions
from kerastrain.run import run_recipe
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.workdir import Workdir, write_json

RECIPE = """
import numpy as np
import keras
from kerastrain import Classification, Data, Examples, Recipe

def load_data(options):
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
    labels = (rows[:, 0] > 0).astype("int64")
    train, validation, test = (Examples(rows[p], labels[p]) for p in (
        slice(0, 192), slice(192, 250), slice(250, 300)))
    task = Classification(("cold", "warm"))
    return Data(train=train, validation=validation, test=test, task=task)

def build_model(options, data):
    model = keras.Sequential([keras.Input((3,), name="weather"), keras.layers.Dense(2)])
    model.compile(
        optimizer=keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model

RECIPE = Recipe(load_data=load_data, build_model=build_model)
"""
ROWS = {"weather": np.linspace(-2, 2, 27, dtype=np.float32).reshape(9, 3)}


def step_here(step, folder, names):
    do = {"making": making.make, "checking": checking.check}[step]
    return {name: do(Stage.read(folder), FORMATS[name]) for name in names}


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    check_here(monkeypatch)
    monkeypatch.setattr(processes, "run_step", step_here)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Workdir:
    """A finished run of three epochs with averaged weights, and its export."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "weather.py").write_text(RECIPE)
    options = TrainOptions(
        recipe=str(folder / "weather.py"),
        workdir=str(folder / "run"),
        max_epochs=3,
        batch_size=64,
        checkpoint_every="1epochs",
        jit="off",
    )
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        run_recipe(options)
    return Workdir(options.workdir)


def run_export(workdir, *arguments) -> int:
    values = parse_flags("export", export.FLAGS, [f"--workdir={workdir}", *arguments])
    return export.run(values)


def exported(workdir, capsys, *arguments) -> dict:
    assert run_export(workdir, "--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def probabilities(version) -> np.ndarray:
    return load_export(Path(version)).ask(ROWS)["probabilities"]


def test_the_best_weights_are_published_as_after_the_training(workdir, capsys, tmp_path):
    found = exported(workdir, capsys, f"--to={tmp_path / 'base'}")
    assert found["version"] == str(tmp_path / "base" / "1")
    own = workdir.exports / "weather" / "1"
    np.testing.assert_allclose(probabilities(found["version"]), probabilities(own), atol=1e-6)
    before, now = read_manifest(own), read_manifest(tmp_path / "base" / "1")
    for name in ("recipe", "options", "step", "objective", "best", "stopped", "data", "metrics"):
        assert now[name] == before[name], name
    assert now["checkpoint"] == "best"
    assert list(found["formats"]) == ["savedmodel", "keras"]


def test_the_latest_state_has_the_averaged_weights_that_were_evaluated(workdir, capsys):
    """The last evaluation was the best: it is the same model, by way of the optimizer's state."""
    base = workdir.exports / "weather"
    found = exported(workdir, capsys, "--checkpoint=latest", "--formats=", "--keep_versions=2")
    assert (found["version"], found["checkpoint"]) == (str(base / "2"), "latest")
    assert (found["removed"], list(found["formats"])) == ([], ["savedmodel"])
    assert found["step"] == read_manifest(base / "1")["step"]
    np.testing.assert_allclose(probabilities(base / "2"), probabilities(base / "1"), atol=1e-6)
    assert read_manifest(base / "2")["best"] is None


def test_the_table_for_another_step_says_what_is_there_and_what_is_not(
    workdir, capsys, tmp_path, monkeypatch
):
    missing = {"litert": ["ai_edge_litert"]}
    monkeypatch.setattr(
        "kerastrain.export.formats.adding.missing_packages", lambda one: missing.get(one.name, [])
    )
    monkeypatch.setattr(catalog, "missing_packages", lambda one: [])
    first = CheckpointFiles(workdir.latest_checkpoints).steps()[0]
    options = (f"--to={tmp_path}", f"--checkpoint={first}", "--formats=weights,litert")
    assert run_export(workdir, *options) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / '1'}: the weights of step {first} (step)" in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["format"][:4] == ["format", "file", "size", "largest"]
    assert lines["savedmodel"][1] == "saved_model.pb"
    assert "keras" not in lines
    assert lines["weights"][1] == "model.weights.h5"
    assert lines["weights"][-3:] == ["100.0%", "raw", "rows"]
    assert "model.tflite: ai_edge_litert is not installed" in out
    assert "preprocessing.json" not in out
    own = workdir.exports / "weather" / "1"
    assert np.abs(probabilities(tmp_path / "1") - probabilities(own)).max() > 1e-3


def test_a_step_that_is_not_there_is_refused_with_those_that_are(workdir):
    steps = CheckpointFiles(workdir.latest_checkpoints).steps()
    listed = ", ".join(map(str, steps))
    with pytest.raises(CheckpointError, match=f"no checkpoint '7777'.*states of step {listed}, "):
        run_export(workdir, "--checkpoint=7777")


def test_a_checkpoint_is_a_known_word_or_a_step(workdir):
    with pytest.raises(UsageError, match="'lates'; expected best.*Did you mean 'latest'"):
        run_export(workdir, "--checkpoint=lates")


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(OptionsError, match="no format 'onx'.*Did you mean 'onnx'"):
        run_export(tmp_path / "nothing", "--formats=keras,onx")


def test_a_format_whose_package_is_missing_is_refused_with_how_to_install_it(workdir, monkeypatch):
    monkeypatch.setattr(catalog, "missing_packages", lambda one: list(one.packages))
    with pytest.raises(ExportError, match=r"onnxruntime.*pip install 'kerastrain\[formats\]'"):
        run_export(workdir, "--formats=onnx")


def test_a_damaged_checkpoint_is_refused_and_stays_where_it_is(workdir, tmp_path):
    copy = Workdir(tmp_path / "run")
    shutil.copytree(workdir.path, copy.path)
    files = CheckpointFiles(copy.best_checkpoints)
    step = files.steps()[-1]
    data = files.data_files(step)[0]
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=f"step {step} .* cannot be used"):
        run_export(copy)
    assert step in files.steps()


def test_a_recipe_that_makes_another_model_now_is_refused(workdir, tmp_path):
    copy = Workdir(tmp_path / "run")
    shutil.copytree(workdir.path, copy.path)
    record = json.loads(copy.run_file.read_text())
    record["model"]["graph"] = "another"
    write_json(copy.run_file, record)
    with pytest.raises(RecipeError, match="another model than the run trained:\n  the layers"):
        run_export(copy)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Eleven formats, each asked by its own runtime.
def test_every_format_of_a_real_run_is_made_and_checked_by_the_command(run_kerastrain, tmp_path):
    run = f"--workdir={tmp_path / 'run'}"
    trained = run_kerastrain("train", "--recipe=digits", "--max_epochs=8", run)
    assert trained.returncode == 0, trained.stderr
    made = run_kerastrain("export", run, "--formats=all", "--json")
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    found = json.loads(made.stdout)
    absent = [n for n, one in FORMATS.items() if catalog.missing_packages(one)]
    assert set(found["formats"]) == set(FORMATS) - set(absent)
    for name, report in found["formats"].items():
        assert (tmp_path / "run/export/digits/2" / report["file"]).stat().st_size > 1000
        assert report["agreement"] >= 0.97
        if FORMATS[name].limits is None and report["error_of"] == "probabilities":
            assert (report["error"] or 0.0) <= 1e-5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_table_gets_formats_behind_its_encoder(run_kerastrain, tmp_path, real_data):
    run = f"--workdir={tmp_path / 'run'}"
    table = f"--data={real_data / 'tabular' / 'titanic.csv'}"
    trained = run_kerastrain(
        "train", "--recipe=tabular", table, "--target=Survived", "--max_epochs=3", run
    )
    assert trained.returncode == 0, trained.stderr
    made = run_kerastrain("export", run, "--formats=litert,litert_float16,weights", "--json")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    wanted = ["litert", "litert_float16", "weights"]
    lacking = [name for name in wanted if catalog.missing_packages(FORMATS[name])]
    assert not lacking
    assert {n: r["takes"] for n, r in found["formats"].items()} == {
        "savedmodel": "raw rows",
        **dict.fromkeys(["weights", "litert", "litert_float16"], "features"),
    }
    assert (Path(found["version"]) / "preprocessing.json").exists()
