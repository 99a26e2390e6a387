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
        (["train", "digits"], "Unexpected argument 'digits'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_message(arguments, message, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("kerastrain: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


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
