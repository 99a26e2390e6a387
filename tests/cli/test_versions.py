from __future__ import annotations

import json
import logging
import subprocess
import sys
from functools import partial

import pytest
from hand_made_versions import publish, save_weather

from kerastrain.cli import versions
from kerastrain.cli.command_line import parse_flags
from kerastrain.errors import ExportError, UsageError
from kerastrain.export import manifest
from kerastrain.options import TrainOptions
from kerastrain.recipe import load_recipe
from kerastrain.workdir import Workdir, write_json

RECIPE = """
import numpy as np
from kerastrain import Classification, Data, Examples, Recipe

def load_data(options):
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype("float32")
    columns = {"temperature": rows[:, 0], "wind": rows[:, 1]}
    whole = Examples(columns, (rows[:, 0] + 0.1 * rows[:, 1] > 0).astype("int64"))
    train, test = whole.take(np.arange(100)), whole.take(np.arange(100, 400))
    return Data(train=train, test=test, task=Classification(("cold", "warm")))

RECIPE = Recipe(load_data=load_data, build_model=None)
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run with two versions of a model in it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "weather.py").write_text(RECIPE)
    options = TrainOptions(recipe=str(folder / "weather.py"), workdir=str(folder / "run"))
    fingerprint = load_recipe(options.recipe).recipe.load_data(options).fingerprint()
    workdir = Workdir(options.workdir)
    workdir.create()
    record = {
        "recipe": options.recipe,
        "resolved": options.to_json(),
        "data_fingerprint": fingerprint,
    }
    write_json(workdir.run_file, record)
    base = workdir.exports / "weather"
    publish(base, partial(save_weather, threshold=0.5), data={"fingerprint": "another"})
    publish(base, save_weather, data={"fingerprint": fingerprint})
    return workdir


def text_file(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text(text)


@pytest.fixture
def base(tmp_path):
    """Three versions that nobody asks."""
    for number, accuracy in enumerate((0.5, 0.75, 0.625)):
        metrics = {"accuracy": accuracy, "loss": 0.25, "ece": 0.1}
        publish(tmp_path / "m", partial(text_file, text=str(number)), metrics=metrics)
    return tmp_path / "m"


def run(*arguments):
    values = parse_flags("versions", versions.FLAGS, arguments)
    level = logging.getLogger("kerastrain").level
    try:
        return versions.run(values)
    finally:
        logging.getLogger("kerastrain").setLevel(level)


def deployed(base):
    return (base / str(manifest.versions(base)[-1]) / "saved_model.pb").read_text()


def test_the_list_tells_each_versions_metrics_state_and_which_is_deployed(base, capsys):
    (base / "1" / "saved_model.pb").write_text("broken")
    assert run(f"--model={base}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(base)
    headings = lines[1].split()
    assert headings == ["version", "created", "step", "accuracy", "loss", "size", "notes", "state"]
    assert "damaged: " in lines[2] and "sha256" in lines[2]
    assert "0.7500" in lines[3] and lines[3].endswith("intact")
    assert "deployed" in lines[4]
    assert "deployed: 3; --rollback deploys 2 again" in lines
    assert "--compare=2,3" in lines[-1]


def test_json_is_one_line_with_every_version(base, capsys):
    assert run(f"--model={base}", "--json", "--list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["deployed"] == 3
    assert [each["version"] for each in found["versions"]] == [1, 2, 3]
    assert found["versions"][0]["metrics"]["ece"] == 0.1


def test_a_version_is_deployed_and_rolled_back_and_old_ones_go(base, capsys):
    run(f"--model={base}", "--promote=1")
    assert capsys.readouterr().out == (
        "Version 4 is deployed: a copy of version 1. Before it was 3.\n"
    )
    assert deployed(base) == "0"
    run(f"--model={base / '4'}", "--rollback", "--json")  # a version stands for its folder
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["copy_of"], found["reason"]) == (5, 3, "rollback")
    run(f"--model={base}", "--rollback", "--keep_versions=2")
    assert "removed: 2, 3, 4" in capsys.readouterr().out
    assert deployed(base) == "1" and manifest.versions(base) == [1, 6]
    run(f"--model={base}", "--keep_versions=1")
    assert "removed: 1" in capsys.readouterr().out
    with pytest.raises(ExportError, match="Nothing that was deployed before version 6"):
        run(f"--model={base}", "--rollback")


def test_the_folder_may_be_where_one_stands(base, capsys, monkeypatch):
    for place in (base, base / "2", base / "2" / "assets.extra"):
        monkeypatch.chdir(place)
        model = ".." if place.name == "assets.extra" else "."
        run(f"--model={model}", "--json")
        assert json.loads(capsys.readouterr().out)["deployed"] == 3


def test_two_versions_are_compared_on_the_runs_test_rows(compared, capsys):
    assert run(f"--model={compared}", "--compare=1,2", "--bootstrap=200") == 0
    shown = capsys.readouterr().out
    first, second = shown.splitlines()[:2]
    assert first.endswith("version 1 (a) and version 2 (b) on 300 test rows")
    assert second.startswith("Attention: version 1 was trained on other data")
    (accuracy,) = (line for line in shown.splitlines() if line.startswith("accuracy"))
    assert accuracy.endswith(" b") and accuracy.count("+") == 3
    for text in ("labels: different in", "labels of a (lines) and b (columns)", "temperature="):
        assert text in shown


def test_a_comparison_is_also_one_line_of_json(compared, capsys):
    run(f"--model={compared}", "--compare=2,1", "--bootstrap=0", "--json")
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["a"], found["b"], found["rows"], found["foreign"]) == (2, 1, 300, ["b"])
    assert found["metrics"]["accuracy"]["difference"] < 0
    assert found["differences"]["only_b_right"] < found["differences"]["only_a_right"]


def test_versions_outside_of_a_run_are_compared_on_a_named_runs_rows(compared, tmp_path, capsys):
    for number in ("1", "2"):
        publish(tmp_path / "m", partial(save_weather, threshold=int(number) / 10))
    with pytest.raises(UsageError, match="lies in no run.*--workdir=RUN"):
        run(f"--model={tmp_path / 'm'}", "--compare=1,2")
    arguments = (f"--workdir={compared}", "--compare=1,2", "--bootstrap=0", "--json")
    run(f"--model={tmp_path / 'm'}", *arguments)
    assert json.loads(capsys.readouterr().out)["rows"] == 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--model is missing"),
        (["--rollback", "--promote=1"], "--promote and --rollback are given"),
        (["--compare=1"], "two different versions .* of 1, 2, 3"),
        (["--compare=1,x"], "two different versions"),
        (["--compare=2,2"], "two different versions"),
        (["--compare=2,9"], "there is no version 9"),
        (["--compare=1,2", "--keep_versions=3"], "does not go with --compare"),
        (["--promote=1", "--keep_versions=0"], "expected 1 or more"),
    ],
)
def test_a_wrong_command_line_changes_nothing_and_is_told(base, arguments, says):
    model = [f"--model={base}"] if arguments else []
    with pytest.raises(UsageError, match=says):
        run(*model, *arguments)
    assert manifest.versions(base) == [1, 2, 3]


def test_a_version_that_lies_in_no_folder_of_versions_is_told(base):
    (base / "3").rename(base.parent / "alone")
    with pytest.raises(ExportError, match="'alone' is none"):
        run(f"--model={base.parent / 'alone'}")


def test_all_but_comparing_needs_no_tensorflow(base):
    script = f"""
        import sys
        from kerastrain.cli.main import main
        assert main(["versions", "--model={base}", "--rollback"]) == 0
        assert main(["versions", "--model={base}", "--compare=1,2"]) == 2
        assert "tensorflow" not in sys.modules and "sklearn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", "if True:" + script], check=True)
