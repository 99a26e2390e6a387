"""The command as a user types it: what it prints, returns, and refuses."""

import json
import os

import killing
import pytest

BAD_RECIPES = {
    "uncompiled": (
        "import keras\n"
        "def build(options, data):\n"
        "    return keras.Sequential([keras.Input((8, 8)), keras.layers.Dense(10)])\n",
        "is not compiled; call model.compile",
    ),
    "no_model": (
        "def build(options, data):\n    return 'a model'\n",
        "returned str; expected a compiled keras.Model",
    ),
    "broken": (
        "def build(options, data):\n    return 1 / 0\n",
        "recipe.py:7: ZeroDivisionError",
    ),
}
# Of somebody's other programs; they are not to change what a command trains.
KERAS_SETTINGS = {
    "backend": "jax",
    "floatx": "float16",
    "epsilon": 0.01,
    "image_data_format": "channels_first",
}
LOADING = "import kerastrain\nfrom kerastrain.data.bundled import load_digits_data\n\n\n\n"


def test_train_again_and_evaluate(run_kerastrain, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(KERAS_SETTINGS))
    odd = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    odd.pop("TF_CPP_MIN_LOG_LEVEL")
    train = ("train", "--recipe=digits", "--workdir=runs/d", "--max_epochs=3")
    first = run_kerastrain(*train, env=odd)
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith(
        "warning: Other settings of Keras are not used: backend=torch (here tensorflow), "
        "floatx=float16 (here float32), epsilon=0.01 (here 1e-07), image_data_format="
    )
    assert first.stderr.count("\n") == 1
    environment = json.loads((tmp_path / "runs/d/run.json").read_text())["environment"]
    assert (environment["floatx"], environment["epsilon"]) == ("float32", 1e-7)
    assert "test:    accuracy" in first.stdout and "runs/d/export/digits/1" in first.stdout
    again = run_kerastrain(*train)
    assert again.returncode == 0 and again.stdout.startswith("already finished")
    refused = run_kerastrain("train", "--recipe=digits", "--workdir=runs/d", "--seed=5")
    assert refused.returncode == 1 and "seed: 0 recorded, 5 now" in refused.stderr
    measured = run_kerastrain("evaluate", "--workdir=runs/d", "--json")
    (line,) = measured.stdout.splitlines()
    result = json.loads((tmp_path / "runs/d/result.json").read_text())
    assert json.loads(line)["metrics"] == pytest.approx(result["metrics"])
    assert measured.stderr == ""


def test_a_run_without_any_output_publishes_and_its_files_are_its_own(run_kerastrain, tmp_path):
    arguments = ("train", "xor", "--workdir=run", "--max_epochs=2")
    closed = {"capture_output": False, "preexec_fn": lambda: os.closerange(0, 3)}
    assert run_kerastrain(*arguments, **closed).returncode == 0
    assert (tmp_path / "run/export/xor/1/saved_model.pb").exists()
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["step"] > 0


@pytest.mark.slow  # the commands of the README do the same in the fast suite
def test_a_table_from_csv_to_a_served_model(run_kerastrain, real_data):
    data = real_data / "tabular" / "california-housing.csv.gz"
    flags = ("train", "--recipe=tabular", "--target=median_house_value", "--workdir=runs/housing")
    ended = run_kerastrain(*flags, f"--data={data}", "--max_epochs=2")
    assert ended.returncode == 0, ended.stderr
    # Where the data lie may be left out the second time.
    assert run_kerastrain(*flags, "--max_epochs=2").stdout.startswith("already finished")
    longer = run_kerastrain(*flags, "--max_epochs=3")
    assert longer.returncode == 0 and "Going on from step" in longer.stdout, longer.stderr
    measured = run_kerastrain("evaluate", "--workdir=runs/housing", "--json")
    metrics = json.loads(measured.stdout)["metrics"]
    assert set(metrics) == {"rmse", "mae", "r2"}
    assert 30_000 < metrics["rmse"] < 120_000  # dollars


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_mixed_precision_trains_and_publishes(run_kerastrain, tmp_path, precision):
    ended = run_kerastrain(
        "train", "--recipe=digits", "--max_epochs=4", f"--precision={precision}", "--jit=off"
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / "runs" / "digits" / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.8


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_bad_recipe_is_named_and_nothing_is_written(run_kerastrain, tmp_path, name):
    build, message = BAD_RECIPES[name]
    recipe = "RECIPE = kerastrain.Recipe(load_data=load_digits_data, build_model=build)\n"
    (tmp_path / "recipe.py").write_text(LOADING + build + recipe)
    ended = run_kerastrain("train", "--recipe=recipe.py", "--workdir=run")
    assert ended.returncode == 1
    assert message in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_is_left_alone(run_kerastrain, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    ended = run_kerastrain("train", "--recipe=digits", "--workdir=photos")
    assert ended.returncode == 1 and "holds something else" in ended.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.slow  # `test_endings.py` damages files in the fast suite.
def test_a_damaged_checkpoint_is_told_and_the_run_ends_the_same(tmp_path, undisturbed):
    flags = (*killing.MLP, "--max_epochs=40")
    workdir = tmp_path / "run"
    process = killing.start(workdir, *flags)
    folder = workdir / "checkpoints" / "latest"
    killing.kill_when(lambda: len(list(folder.glob("ckpt-*.json"))) >= 3, process)
    newest = max(folder.glob("ckpt-*.json"), key=lambda path: int(path.stem[5:])).stem
    data = folder / f"{newest}.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    killing.finish(workdir, *flags)
    assert f"checkpoint of step {newest[5:]} is damaged" in (tmp_path / "run.log").read_text()
    killing.assert_same(killing.what_remains(workdir), undisturbed(*flags))
