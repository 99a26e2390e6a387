"""`kerastrain explain` on a run with named columns, and on one without."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from checked_here import check_here

from kerastrain.cli.explain import lines
from kerastrain.cli.main import main
from kerastrain.export.publishing import publish
from kerastrain.options import TrainOptions
from kerastrain.recipe import load_recipe
from kerastrain.workdir import Workdir, write_json

RECIPE = """
import numpy as np
from kerastrain import Classification, Data, Examples, Recipe

def load_data(options):
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
    labels = (rows[:, 0] > 0).astype("int64")
    def split(part):
        columns = {"warmth": rows[part, 0], "per-week": rows[part, 1], "twice": 2 * rows[part, 1]}
        inputs = rows[part] if options.settings.get("images") else columns
        return Examples(inputs, labels[part])
    return Data(train=split(slice(100)), validation=split(slice(100, 200)),
                test=split(slice(200, 300)), task=Classification(("cold", "warm")))

RECIPE = Recipe(load_data=load_data, build_model=None, settings={"images": False})
"""


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Makes a work directory as training leaves it: run.json and one export."""

    def make(**settings):
        folder = tmp_path_factory.mktemp("run")
        (folder / "weather.py").write_text(RECIPE)
        recipe, where = str(folder / "weather.py"), str(folder / "run")
        options = TrainOptions(recipe=recipe, workdir=where, settings=settings)
        data = load_recipe(recipe).recipe.load_data(options)
        model = image_model() if settings["images"] else column_model()
        model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        workdir = Workdir(where)
        workdir.create()
        record = {"recipe": recipe, "resolved": options.to_json()}
        write_json(workdir.run_file, {**record, "data_fingerprint": data.fingerprint()})
        with pytest.MonkeyPatch.context() as patch:
            check_here(patch)
            publish(model, data, base=workdir.exports / "weather", facts={})
        return workdir

    return make


def column_model():
    inputs = {n: keras.Input((), name=n) for n in ("warmth", "per-week", "twice")}
    columns = [keras.layers.Reshape((1,))(each) for each in inputs.values()]
    dense = keras.layers.Dense(1)
    model = keras.Model(inputs, dense(keras.layers.Concatenate()(columns)))
    dense.set_weights([np.array([[5.0], [0.1], [0.0]]), np.zeros(1)])
    return model


def image_model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


@pytest.fixture(scope="module")
def run(make_run):
    return make_run(images=False)


def test_columns_are_shown_with_bars_and_left_in_the_report(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["explain", f"--workdir={run}"]) == 0
    shown = capsys.readouterr().out
    order = [line.split()[0] for line in shown.splitlines() if "±" in line]
    assert order[0] == "warmth" and set(order) == {"warmth", "per-week", "twice"}
    assert "██████████" in shown
    assert "per-week and twice (1.00)" in shown and "shared out" in shown
    assert max(map(len, shown.partition("\n\n")[2].splitlines())) <= 80
    page = run.path / "report" / "index.html"
    assert shown.endswith(f"report: {page}\n") and "warmth" in page.read_text()


def test_json_is_one_line_and_says_the_same_again(run, capsys):
    first, second = [], []
    for found in (first, second):
        arguments = ["--metric=accuracy", "--repeats=3", "--rows=50"]
        assert main(["explain", f"--workdir={run}", "--json", *arguments]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        found.append(json.loads(line))
    assert first == second
    assert first[0]["metric"] == "accuracy" and first[0]["baseline"] > 0.9
    assert (first[0]["rows"], first[0]["repeats"]) == (50, 3)
    assert first[0]["columns"][0]["name"] == "warmth" and first[0]["columns"][0]["mean"] > 0.3


def test_a_picture_is_drawn_where_asked_for(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["explain", f"--workdir={run}", f"--plot={tmp_path / 'columns.png'}"]) == 0
    assert (tmp_path / "columns.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "told", "status"),
    [
        ([], "--workdir is missing", 2),
        (["--workdir={run}", "--rows=1"], "at least 2 rows", 2),
        (["--workdir={run}", "--plot=x.txt"], "ends in .png", 2),
        (["--workdir={run}", "--metric=rmse"], "no metric 'rmse'", 1),
        (["--workdir=nowhere"], "holds no run", 1),
    ],
)
def test_mistakes_are_told(run, capsys, arguments, told, status):
    assert main(["explain", *(each.format(run=run) for each in arguments)]) == status
    assert told in capsys.readouterr().err


def test_data_without_named_columns_are_refused(make_run, capsys):
    assert main(["explain", f"--workdir={make_run(images=True)}"]) == 1
    assert "without named columns" in capsys.readouterr().err


def test_many_columns_are_cut_and_a_disturbing_one_has_no_bar():
    columns = [{"name": f"c{i}", "mean": 1 - i / 40, "std": 0.01} for i in range(60)]
    found = {"metric": "loss", "baseline": 0.3, "rows": 10, "repeats": 5, "columns": columns}
    shown = lines({**found, "alike": []})
    assert shown[-1] == "… and 10 more, none of them more important."
    by_name = {line.split()[0]: line for line in shown if "±" in line}
    assert "█" in by_name["c0"] and "█" not in by_name["c45"]
