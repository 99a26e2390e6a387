import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kerastrain.cli import train
from kerastrain.cli.command_line import parse_flags
from kerastrain.cli.main import main
from kerastrain.cli.train import options_from, summary_lines
from kerastrain.errors import RecipeError, UsageError
from kerastrain.options import TrainOptions

RESULT = SimpleNamespace(
    workdir=Path("runs/digits"),
    stopped="No better val_loss for 5 evaluations.",
    step=2500,
    best={"name": "val_accuracy", "value": 0.98765, "step": 1250},
    metrics={"loss": 0.0625, "accuracy": 0.975},
    export=Path("runs/digits/export/digits/1"),
    already_finished=False,
)


def options(*arguments: str) -> TrainOptions:
    return options_from(parse_flags("train", train.FLAGS, arguments))


@pytest.fixture
def started(monkeypatch):
    """Replaces the run itself; holds the (options, override) that it was started with."""
    calls = []

    def run_recipe(options, *, override=False, new_version=False):
        calls.append((options, override))
        return RESULT

    def dry_run(options, *, override=False, new_version=False):
        return ["ok  labels  0 to 9"]

    replaced = SimpleNamespace(run_recipe=run_recipe, dry_run=dry_run)
    monkeypatch.setitem(sys.modules, "kerastrain.run", replaced)
    return calls


def test_without_flags_everything_is_left_to_the_recipe():
    assert options() == TrainOptions(recipe="digits", workdir="runs/digits")


def test_the_recipe_may_be_given_without_its_flag():
    assert options("xor", "--seed=3") == options("--recipe=xor", "--seed=3")
    assert options("--seed", "3", "xor", "--recipe=xor").recipe == "xor"
    with pytest.raises(RecipeError, match="There is no recipe 'weights'"):
        options("weights")


def test_every_option_has_its_flag():
    given = {
        "recipe": "digits",
        "workdir": "w",
        "data": "d.csv",
        "data_dir": "d",
        "target": "t",
        "max_epochs": 3,
        "max_steps": 40,
        "batch_size": 16,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "seed": 7,
        "patience": 0,
        "objective": "val_accuracy",
        "evaluate_every": "20steps",
        "checkpoint_every": "10s",
        "strategy": "mirrored",
        "jit": "off",
        "precision": "mixed_float16",
        "max_seconds": 60.0,
        "more_epochs": 2,
        "on_nonfinite": "rollback",
        "keep_last": 5,
        "keep_best": 0,
        "keep_every": "2h",
    }
    arguments = [f"--{name}={value}" for name, value in given.items()]
    expected = TrainOptions(**given, settings={"hidden": "256", "activation": "a=b"})
    assert options(*arguments, "--set=hidden=256", "--set=activation=a=b") == expected


def test_the_work_directory_is_named_after_the_recipe(tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('not run when it is only located')")
    assert options(f"--recipe={tmp_path}/mine.py").workdir == "runs/mine"


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    given = options("--data=~/x.csv", "--data_dir=~", "--workdir=~/runs/1")
    assert (given.data, given.data_dir) == ("/home/ada/x.csv", "/home/ada")
    assert given.workdir == "/home/ada/runs/1"


@pytest.mark.parametrize("text", ["hidden", "=3", "", "hid den=3", "3=3"])
def test_a_malformed_setting_is_refused(text):
    with pytest.raises(UsageError, match="expected name=value, as in --set=hidden=256"):
        options(f"--set={text}")


def test_an_unknown_recipe_is_refused_with_a_suggestion():
    with pytest.raises(RecipeError, match="Did you mean 'digits'"):
        options("--recipe=digit")


@pytest.mark.parametrize(
    ("argument", "status", "message"),
    [
        ("--recipe=nonsuch", 1, "There is no recipe 'nonsuch'."),
        ("--recipe=nonsuch.py", 1, "There is no recipe file 'nonsuch.py'."),
        ("--batch_size=0", 1, "expected a whole number of at least 1, or 'all'."),
        ("--evaluate_every=often", 1, "--evaluate_every is 'often'; expected"),
        ("--objective=val_los", 1, "Did you mean 'val_loss'?"),
        ("--set=hidden", 2, "--set is 'hidden'; expected name=value"),
        ("--jit=maybe", 2, "--jit is 'maybe'; expected one of auto, on, off."),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    argument, status, message, started, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", argument]) == status
    assert message in capsys.readouterr().err
    assert not started
    assert not list(tmp_path.iterdir())


def test_a_run_gets_its_options_and_reports_what_it_reached(started, capsys):
    assert main(["train", "--recipe=digits", "--seed=3"]) == 0
    assert started == [(TrainOptions(workdir="runs/digits", seed=3), False)]
    assert capsys.readouterr().out.splitlines() == [
        "best:    val_accuracy 0.9877 at step 1,250",
        "test:    loss 0.0625, accuracy 0.975",
        "export:  runs/digits/export/digits/1",
        "next:    kerastrain evaluate --workdir=runs/digits",
        "         tensorboard --logdir=runs/digits",
        "stopped: No better val_loss for 5 evaluations. The weights of step 1,250 (val_accuracy "
        "0.9877) were restored and exported.",
    ]


def test_a_dry_run_shows_its_report_and_trains_nothing(started, capsys):
    assert main(["train", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "ok  labels  0 to 9" in shown and "nothing was trained" in shown
    assert not started


def test_override_is_handed_on(started):
    assert main(["train", "--override"]) == 0
    assert started[0][1] is True


def test_a_finished_run_says_that_it_was_already_finished():
    finished = SimpleNamespace(**{**vars(RESULT), "already_finished": True})
    assert summary_lines(finished)[0] == "already finished: No better val_loss for 5 evaluations."


def test_what_a_run_does_not_have_is_not_shown():
    bare = SimpleNamespace(**{**vars(RESULT), "best": None, "metrics": {}, "export": None})
    assert summary_lines(bare) == []
