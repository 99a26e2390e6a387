"""`kerastrain replay` on made-up records; nothing of it needs TensorFlow."""

import json
import subprocess
import sys

import pytest

from kerastrain.cli.main import main
from kerastrain.options import TrainOptions
from kerastrain.workdir import Workdir, write_json

VALUES = [1.0, 0.8, 0.85, 0.9, 0.5, 0.55, 0.6]


def make_run(path, values=VALUES, *, objective="val_loss", stop="never"):
    workdir = Workdir(path)
    workdir.create()
    options = TrainOptions(workdir=str(path), objective=objective, stop=stop).to_json()
    write_json(workdir.run_file, {"given": options, "resolved": options})
    lines = [{"kind": "train", "step": 5, "epoch": 0.5, "seconds": 0.5, "loss": 3.0}]
    lines += [
        {"kind": "evaluation", "step": 10 * i, "epoch": i, "seconds": 2.0 * i, "loss": 1 / i,
         "val_loss": value}
        for i, value in enumerate(values, start=1)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The last line is cut, as by a kill.
    workdir.metrics_file.write_text(text + '{"kind": "evalu')
    return path


def row(out, criterion):
    line = next(line for line in out.splitlines() if line.startswith(criterion))
    return line.split()


def test_a_table_says_where_each_criterion_stops_what_is_lost_and_what_is_saved(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert main(["replay", f"--workdir={run}", "--stop=patience(2)", "--stop=patience(5)"]) == 0
    out = capsys.readouterr().out
    assert "recorded to step 70 (epoch 7), best val_loss 0.5 at step 50" in out
    assert row(out, "patience(2)") == ["patience(2)", "40", "4", "0.8", "0.3", "(60.0", "%)", "6.0",
                                       "s", "43%"]  # fmt: skip
    assert row(out, "patience(5)")[1:5] == ["to", "the", "end", "7"]


def test_the_runs_own_rule_comes_first_and_is_marked(tmp_path, capsys):
    run = make_run(tmp_path / "run", stop="gl(5)")
    main(["replay", f"--workdir={run}", "--stop=patience(2)", "--stop=gl(5)"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["gl(5)", "patience(2)"]
    assert lines[2].startswith("gl(5) *") and "* the run's own" in lines


def test_without_a_criterion_a_selection_is_tried(tmp_path, capsys):
    main(["replay", f"--workdir={make_run(tmp_path / 'run')}"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("patience(1)", "gl(2)", "pq(0.5", "up(2", "smoothed("))


def test_several_runs_are_compared_by_their_means(tmp_path, capsys):
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", [1.0, 0.5, 0.6, 0.7, 0.8])
    main(["replay", f"--workdir={one},{other}", "--stop=patience(2)"])
    means = capsys.readouterr().out.partition("Mean over 2 runs;")[2]
    # 60 % and nothing lost; 3 of 7 and 1 of 5 evaluations saved.
    assert row(means, "patience(2)") == [
        "patience(2)",
        "2",
        "of",
        "2",
        "30.0",
        "%",
        "60.0",
        "%",
        "31%",
    ]


def test_json_is_an_object_a_line_and_nothing_else(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    main(["replay", f"--workdir={run}", "--stop=target(0.8)", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["stop"] for each in found] == ["never", "target(0.8)"]
    assert (found[1]["stopped_at_step"], found[1]["best"]) == (
        20, {"step": 20, "epoch": 2, "val_loss": 0.8},
    )  # fmt: skip
    assert "reached the target" in found[1]["because"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_drawn(tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    runs = ",".join(str(make_run(tmp_path / name)) for name in "ab")
    picture = tmp_path / f"replay.{suffix}"
    assert main(["replay", f"--workdir={runs}", f"--plot={picture}"]) == 0
    assert picture.stat().st_size > 5000
    assert f"picture: {picture}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--workdir is missing"),
        (["--workdir=nowhere"], "holds no run"),
        (["--workdir=RUN", "--stop=traget(1)"], "Did you mean 'target'"),
        (["--workdir=RUN", "--stop=evidence"], "needs 'evidence'"),
        (["--workdir=RUN", "--plot=replay.bmp"], "expected a file name that ends in .png"),
        (["--workdir=RUN", "--plot=nowhere/replay.png"], "there is no folder"),
        (["--workdir=EMPTY"], "no evaluation yet"),
        (["--workdir=GARBAGE"], "cannot be read as a run's metrics"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "RUN")
    make_run(tmp_path / "EMPTY", [])
    Workdir(make_run(tmp_path / "GARBAGE")).metrics_file.write_text("[1]\n")
    assert main(["replay", *arguments]) in (1, 2)
    assert says in capsys.readouterr().err


def test_help_lists_every_criterion_with_its_arguments(capsys):
    assert main(["replay", "--help"]) == 0
    out = capsys.readouterr().out
    assert "gl(alpha, ideal=None, monitor=None)" in out and "smoothed(criterion, beta=0.9)" in out


def test_a_replay_imports_no_tensorflow(tmp_path):
    run = make_run(tmp_path / "run")
    program = (
        "import sys; from kerastrain.cli.main import main; "
        f"main(['replay', '--workdir={run}']); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
