import errno
import importlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from absl import flags

import kerastrain
from kerastrain.cli.main import COMMANDS, main
from kerastrain.errors import DataError, Interrupted
from kerastrain.recipe import shipped_recipes


@pytest.fixture
def command(monkeypatch):
    """Puts a function in the place of a command: `kerastrain train` calls it."""

    def install(run) -> None:
        module = SimpleNamespace(SUMMARY="Test.", FLAGS=flags.FlagValues(), run=run)
        monkeypatch.setitem(sys.modules, "kerastrain.cli.train", module)

    return install


def raising(error: BaseException):
    def run(values):
        raise error

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_lists_commands_and_recipes(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"{name} " in shown
        assert summary in shown
    assert ", ".join(shipped_recipes()) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_flags_a_run_and_the_summary_that_is_listed(name, capsys):
    module = importlib.import_module(f"kerastrain.cli.{name}")
    assert COMMANDS[name] == module.SUMMARY
    assert callable(module.run)
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in module.FLAGS:
        assert flag in shown
        assert module.FLAGS[flag].help, f"--{flag} has no help"


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kerastrain {kerastrain.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "There is no command 'trian'; the commands are train, schema, evaluate, "),
        (["trian"], "Did you mean 'train'?"),
        (["--recipe=digits"], "Expected a command before '--recipe=digits'"),
        (["train", "--max_epoch=3"], "Did you mean '--max_epochs'?"),
        (["train", "--max_epochs=x"], "--max_epochs is 'x'; expected a whole number."),
        (["evaluate", "digits"], "Unexpected argument 'digits'"),
        (["train", "digits", "xor"], "Unexpected argument 'xor'"),
        (["train", "max_epochs=3"], "Did you mean '--max_epochs'?"),
        (["train", "digits", "--recipe=xor"], "'digits' and --recipe=xor both say what to train"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_message(arguments, message, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("kerastrain: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


REFUSED = {
    "train tabular --data=nope.csv --target=a": "There is no file 'nope.csv'. Did you mean",
    "train tabular --data=part-*.csv --target=a": "No file matches 'part-*.csv'",
    "train tabular --data=no.csv --target=aa": "no.csv has no column 'aa'. Its columns: a, b.",
    "train tabular --data=no.csv --target=a --weights=w": "There is no column 'w'",
    "train tabular --data=no.csv --target=a --split_time=t": "There is no column 't'",
    "train tabular --data=no.csv --target=a --schema=s.json": "There is no file 's.json'",
    "train tabular --data=no.csv --target=a --test_data=t.csv": "There is no file 't.csv'",
    "train tabular --data=no.csv --target=a --set=hidden=1": "has no setting 'hidden'",
    "train own.py --test_data=t.csv": "There is no file 't.csv'",
    "train mnist_mlp --data_dir=nope": "--data_dir=nope does not exist",
    "train digits --workdir=no.csv/run": "no.csv is a file; expected a folder",
    "train digits --workdir=/proc/none/run": "/proc cannot be read and written to (",
    "train digits --workdir=.": "holds something else than a kerastrain run",
    "train digits --dry_run --workdir=.": "holds something else than a kerastrain run",
    "train digts": "There is no recipe 'digts'",
    "find_lr digits --plot=none/x.png": "there is no folder",
    "find_lr tabular --data=nope.csv --target=a": "There is no file 'nope.csv'",
    "schema --data=no.csv --target=a --output=/dev/null": "is no ordinary file",
    "replay --workdir=run --plot=none/x.png": "there is no folder",
    "explain --workdir=run --plot=none/x.png": "there is no folder",
    "serve --model=nope": "There is no folder 'nope'",
}


def test_what_can_be_refused_without_tensorflow_is_refused_before_it_is_imported(tmp_path):
    (tmp_path / "no.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "own.py").write_text("import keras\n")
    code = (
        "import sys, subprocess\nfrom kerastrain.cli.main import main\n"
        "subprocess.Popen = None  # the process that checks exports would import it\n"
        "for line in sys.argv[1:]:\n"
        "    assert main(line.split()) in (1, 2)\n"
        "    assert 'tensorflow' not in sys.modules, line\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *REFUSED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for told, expected in zip(ended.stderr.splitlines(), REFUSED.values(), strict=True):
        assert expected in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.csv", "own.py"]


def test_an_error_of_the_user_ends_with_1_and_its_message(command, capsys):
    command(raising(DataError("'x.csv' is empty; expected a table.")))
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "kerastrain: error: 'x.csv' is empty; expected a table.\n"


def test_an_interrupted_run_says_so_and_ends_with_its_status(command, capsys):
    command(raising(Interrupted("Stopped by SIGTERM; everything is saved.", exit_status=143)))
    assert main(["train"]) == 143
    assert capsys.readouterr().err == "kerastrain: Stopped by SIGTERM; everything is saved.\n"


def test_ctrl_c_outside_of_a_run_ends_with_130_and_no_traceback(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "kerastrain: interrupted.\n"


def test_another_users_files_are_an_error_in_one_line(command, capsys):
    command(raising(PermissionError(errno.EACCES, "Permission denied", "runs/a/lock")))
    assert main(["train"]) == 1
    shown = "runs/a/lock: Permission denied. Does it belong to another user?\n"
    assert capsys.readouterr().err == f"kerastrain: error: {shown}"


def test_a_bug_keeps_its_traceback(command):
    command(raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_a_broken_pipe_that_is_not_stdouts_is_a_bug(command):
    command(raising(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        main(["train"])


def test_the_exit_status_of_a_command_is_the_process_s(run_kerastrain):
    result = run_kerastrain("trian")
    assert result.returncode == 2
    assert result.stderr.startswith("kerastrain: error: There is no command 'trian'")


def test_a_reader_that_went_away_ends_the_command_quietly():
    with subprocess.Popen(
        [sys.executable, "-m", "kerastrain", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_text_that_the_terminal_cannot_show_does_not_end_the_command(run_kerastrain):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = run_kerastrain("--help", env=environment)
    assert result.returncode == 0, result.stderr
    assert "Commands:" in result.stdout
