"""`kerastrain find_lr`, and `--learning_rate=auto` in training."""

import json
import math

import pytest
from checked_here import check_here
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.cli import find_lr
from kerastrain.cli.command_line import parse_flags
from kerastrain.cli.find_lr import KEPT
from kerastrain.cli.main import main
from kerastrain.cli.terminal_chart import chart
from kerastrain.cli.train import FLAGS
from kerastrain.errors import OptionsError
from kerastrain.options import TrainOptions
from kerastrain.run import dry_run, run_recipe


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    check_here(monkeypatch)


def test_the_curve_and_the_suggestion_are_shown_and_drawn_and_nothing_else_is_left_behind(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["find_lr", "--recipe=xor", "--optimizer=sgd(momentum=0.9)"]) == 0
    out = capsys.readouterr().out
    assert "•" in out and "1e-3" in out
    rate = float(out.partition("suggested learning rate: ")[2].split()[0])
    assert 0.01 < rate < 5
    assert (
        "next:    kerastrain train --recipe=xor --optimizer='sgd(momentum=0.9)' "
        f"--learning_rate={rate:g}" in out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["find_lr_xor.png"]
    assert (tmp_path / "find_lr_xor.png").stat().st_size > 5000


def test_no_picture_is_drawn_where_none_is_wanted_or_none_can_be(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["find_lr", "--recipe=xor", "--plot="]) == 0
    assert capsys.readouterr().out.endswith("picture: none\n")
    (tmp_path / "find_lr_xor.png").mkdir()
    values = parse_flags("find_lr", find_lr.FLAGS, ["xor"])
    assert find_lr.picture_file(values, TrainOptions(recipe="xor")) is None
    (tmp_path / "find_lr_xor.png").rmdir()
    monkeypatch.setattr("kerastrain.plots.has_matplotlib", lambda: False)
    assert main(["find_lr", "--recipe=xor"]) == 0
    assert "pip install 'kerastrain[plot]'" in capsys.readouterr().out
    assert main(["find_lr", "--recipe=xor", "--plot=x.png"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["find_lr", "--recipe=xor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suggestion"] > 0 and len(found["rates"]) == len(found["losses"])


def test_a_picture_is_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "rates.png"
    assert main(["find_lr", "--recipe=xor", f"--plot={picture}"]) == 0
    assert picture.stat().st_size > 5000
    assert f"picture: {picture}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe=nonsuch"], "There is no recipe 'nonsuch'"),
        (["--learning_rate=0.1"], "has no flag '--learning_rate'"),
        (["--optimizer=sgd(momentun=0.9)", "--recipe=xor"], "Did you mean 'momentum'"),
        (["--plot=rates.bmp"], "expected a file name that ends in"),
        (["--batch_size=none"], "expected a whole number"),
    ],
)
def test_what_is_wrong_is_said(capsys, arguments, says):
    assert main(["find_lr", *arguments]) in (1, 2)
    assert says in capsys.readouterr().err


def test_its_flags_are_trains():
    assert set(KEPT) <= set(FLAGS)


def xor(workdir, **options):
    settings = {"learning_rate": "auto", "max_epochs": 20, "jit": "off", **options}
    return run_recipe(TrainOptions(recipe="xor", workdir=str(workdir), **settings))


def test_auto_trains_as_with_the_rate_that_it_finds(tmp_path):
    found = xor(tmp_path / "auto")
    rate = json.loads((tmp_path / "auto" / "run.json").read_text())["found_learning_rate"]
    said = xor(tmp_path / "said", learning_rate=rate)
    assert (found.history, found.best) == (said.history, said.best)
    record = json.loads((tmp_path / "auto" / "run.json").read_text())
    # A layer made after the test has the name that it would have had without.
    assert record["model"] == json.loads((tmp_path / "said" / "run.json").read_text())["model"]


def test_a_later_start_takes_the_rate_that_the_first_one_found(tmp_path, monkeypatch):
    first = xor(tmp_path / "run")
    monkeypatch.setattr("kerastrain.assembly.range_test", None)  # It must not be made again.
    longer = xor(tmp_path / "run", max_epochs=30)
    assert longer.history[:20] == first.history and longer.history[-1]["step"] == 30
    assert xor(tmp_path / "run", max_epochs=30).already_finished


def test_a_rehearsal_says_the_rate(tmp_path):
    options = TrainOptions(recipe="xor", workdir=str(tmp_path / "run"), learning_rate="auto")
    assert any("by a range test of" in line for line in dry_run(options))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_auto_learns_exclusive_or(tmp_path, seed):
    assert xor(tmp_path / "run", seed=seed, max_epochs=100).metrics["accuracy"] == 1


def test_a_loss_that_is_not_finite_at_once_is_told(tmp_path):
    recipe = tmp_path / "bad.py"
    recipe.write_text(
        "import keras, numpy as np, kerastrain\n"
        "X = np.ones((8, 2), np.float32)\n"
        "rows = kerastrain.Examples(X, X[:, :1])\n"
        "def build(options, data):\n"
        "    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "    net.compile('sgd', lambda y, p: (y - p) / 0.0)\n"
        "    return net\n"
        "RECIPE = kerastrain.Recipe(lambda o: kerastrain.Data(rows, rows), build)\n"
    )
    with pytest.raises(OptionsError, match="not finite at once"):
        run_recipe(TrainOptions(str(recipe), str(tmp_path / "run"), learning_rate="auto"))


def test_a_schedule_begins_with_the_rate_that_was_found(tmp_path):
    xor(tmp_path / "run", schedule="exponential(rate=0.5)", max_epochs=2)
    rate = json.loads((tmp_path / "run" / "run.json").read_text())["found_learning_rate"]
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    rates = [line["learning_rate"] for line in lines if line["kind"] == "evaluation"]
    assert rates == pytest.approx([rate / 2, rate / 4], rel=1e-5)


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
    width=st.integers(0, 200),
)
def test_any_curve_can_be_shown(values, width):
    rates = [10 ** (-6 + i / 10) for i in range(len(values))]
    lines = chart(rates, values, width=width, marked=rates[0], x_label="rate")
    assert all(len(line) <= max(width, 32) + 6 for line in lines)
    if any(map(math.isfinite, values)):
        assert any("•" in line for line in lines)


def test_the_suggested_command_has_every_column_of_a_list():
    given = ["--recipe=tabular", "--data=a b.csv", "--target=y", "--ignore_columns=a,b"]
    values = parse_flags("find_lr", find_lr.FLAGS, [*given, "--quantiles=0.1,0.9", "--balance"])
    command = find_lr.train_command(values)
    assert "--ignore_columns=a,b" in command and "--quantiles=0.1,0.9" in command
    assert "--data='a b.csv'" in command and "--balance=True" in command
