import json
from pathlib import Path

import pytest

from kerastrain.cli import train, verify_resume
from kerastrain.cli.command_line import parse_flags
from kerastrain.cli.main import COMMANDS, main
from kerastrain.cli.verify_resume import as_json, report_lines, train_arguments
from kerastrain.errors import KerastrainError, OptionsError, RecipeError, UsageError, WorkdirError
from kerastrain.resume_check import proof
from kerastrain.resume_check.proof import Kill, Report

KILLS = (
    Kill(1, 1, "starting", None, None),
    Kill(2, 1, "training", 12_345, 12_000),
    Kill(3, 2, "exporting", 20_000, 20_000),
)
SAME = Report(KILLS, runs=2, values=65, differences=())
OTHER = Report(KILLS[:2], runs=1, values=65, differences=("best: step: 20, expected 10",))


def flags(*arguments: str):
    return parse_flags("verify_resume", verify_resume.FLAGS, arguments)


@pytest.fixture
def proving(monkeypatch, tmp_path_factory):
    """Replaces the processes; `reports` says what they find, `calls` how they were asked for."""

    class Proving:
        report = SAME
        calls: list[dict] = []  # noqa: RUF012

    def make(arguments, *, folder, kills, seed):
        folder = Path(folder)
        assert list(folder.iterdir()) == []
        (folder / "undisturbed").mkdir()
        Proving.calls.append(
            {"arguments": arguments, "folder": folder, "kills": kills, "seed": seed}
        )
        return type("Proof", (), {"run": lambda self: Proving.report})()

    Proving.calls.clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.setattr(proof, "Proof", make)
    return Proving


def test_the_summary_is_the_one_in_the_list_of_commands():
    assert COMMANDS["verify_resume"] == verify_resume.SUMMARY


def test_every_flag_that_train_has_is_taken_but_those_that_make_no_sense():
    own = set(verify_resume.FLAGS)
    assert set(train.FLAGS) - own == set(verify_resume.LEFT_OUT) - {"workdir"}
    assert own - set(train.FLAGS) == {"kills", "kill_seed", "keep", "json"}
    with pytest.raises(UsageError, match="no flag '--override'"):
        flags("--override")


def test_train_keeps_its_own_flags():
    assert "workdir" in train.FLAGS and "kills" not in train.FLAGS


def test_the_flags_that_were_given_are_handed_to_train():
    given = ["--recipe=xor", "--learning_rate=0.001", "--set=a=1", "--set=b=c d", "--jit=off"]
    values = flags(*given, "--kills=3", "--kill_seed=4", "--workdir=w", "--keep", "--json")
    assert sorted(train_arguments(values)) == sorted(given)
    assert train_arguments(flags()) == []


def test_a_wrong_flag_of_train_is_told_before_anything_is_started(proving):
    with pytest.raises(RecipeError):
        verify_resume.run(flags("--recipe=nosuch"))
    with pytest.raises(OptionsError, match="checkpoint_every"):
        verify_resume.run(flags("--recipe=xor", "--checkpoint_every=often"))
    with pytest.raises(OptionsError, match="--kills is 0"):
        verify_resume.run(flags("--kills=0"))
    assert proving.calls == []


def test_no_difference_is_said_with_the_table_of_kills(proving, capsys):
    assert verify_resume.run(flags("--recipe=xor", "--kills=3", "--kill_seed=7")) == 0
    (call,) = proving.calls
    assert (call["kills"], call["seed"], call["arguments"]) == (3, 7, ["--recipe=xor"])
    assert capsys.readouterr().out == (
        "\n"
        "kill  run  phase        step   goes on from  lost at least\n"
        "   1    1  starting           the beginning              0\n"
        "   2    1  training   12,345         12,000            345\n"
        "   3    2  exporting  20,000         20,000              0\n"
        "\n"
        "2 runs compared, 65 values each.\n"
        "3 kills; no byte differs from the undisturbed run.\n"
    )
    assert not call["folder"].exists()


def test_differences_are_listed_and_the_runs_are_kept(proving, capsys):
    proving.report = OTHER
    assert verify_resume.run(flags("--recipe=xor")) == 1
    out = capsys.readouterr().out
    assert out.endswith(
        "2 kills; run 1 differs from the undisturbed run:\n  best: step: 20, expected 10\n"
    )
    folder = proving.calls[0]["folder"]
    assert f"lie in {folder}." in out and (folder / "undisturbed").is_dir()


def test_as_json_the_report_is_the_last_line(proving, capsys):
    proving.report = OTHER
    assert verify_resume.run(flags("--json")) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["differences"] == ["best: step: 20, expected 10"]
    assert report["kills"][1] == {
        "number": 2, "run": 1, "phase": "training", "step": 12_345, "resumed_step": 12_000,
        "lost_steps": 345,
    }  # fmt: skip
    assert json.loads(as_json(SAME))["kills"][0]["step"] is None


def test_one_kill_is_said_in_the_singular():
    lines = report_lines(Report(KILLS[:1], runs=1, values=65, differences=()))
    assert lines[-2:] == [
        "1 run compared, 65 values each.",
        "1 kill; no byte differs from the undisturbed run.",
    ]


def test_a_given_folder_is_used_and_kept(proving, tmp_path):
    assert verify_resume.run(flags(f"--workdir={tmp_path}/new/runs")) == 0
    assert proving.calls[0]["folder"] == tmp_path / "new" / "runs"
    assert (tmp_path / "new" / "runs" / "undisturbed").is_dir()


def test_a_folder_that_holds_something_is_refused(proving, tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(WorkdirError, match="photo.jpg"):
        verify_resume.run(flags(f"--workdir={tmp_path}"))
    with pytest.raises(WorkdirError, match="cannot be made"):
        verify_resume.run(flags(f"--workdir={tmp_path}/photo.jpg"))
    assert proving.calls == []


def test_an_error_leaves_no_temporary_folder(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise KerastrainError("no")

    monkeypatch.setattr(proof, "Proof", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KerastrainError):
        verify_resume.run(flags("--recipe=xor"))
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_flags_of_both(capsys):
    assert main(["verify_resume", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--kills=N" in out and "--learning_rate=TEXT" in out and "--override" not in out


def test_a_kill_says_what_it_cost():
    assert [str(kill) for kill in KILLS] == [
        "Kill 1: starting; to go on from the beginning.",
        "Kill 2: training at step 12,345; to go on from step 12,000, "
        "at least 345 steps are repeated.",
        "Kill 3: exporting at step 20,000; to go on from step 20,000.",
    ]


def test_lists_of_columns_reach_the_trainings_whole():
    values = flags("--recipe=tabular", "--ignore_columns=a,b", "--set=network=mlp", "--nostream")
    given = train_arguments(values)
    options = train.options_from(parse_flags("train", train.FLAGS, given))
    assert options.table.ignore_columns == ("a", "b") and options.table.stream is False
