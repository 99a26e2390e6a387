"""The command `kerastrain`: finds the command, gives it its flags, reports errors.

    kerastrain COMMAND --flag=value …

A command is a module of this package with SUMMARY (one line), FLAGS (its absl
flags, a FlagValues of its own) and `run(values) -> exit status`; one with `details()` says
more at the end of its --help. It is imported
when it is asked for; until it needs TensorFlow, TensorFlow is not imported.

Exit status: 0 done; 1 an error that the message explains, or a bug (with its
traceback); 2 the command line is wrong; 128 + signal when a signal ended it. What is printed
and cannot be written costs no run: `train` and others whose work lies elsewhere (WORKS) keep
their status. A command whose product it is ends with 1; with 141 in front of `| head`.
"""

from __future__ import annotations

import errno
import importlib
import signal
import sys
from collections.abc import Callable, Sequence

import kerastrain
from kerastrain.best_effort import best_effort_output
from kerastrain.cli.keras_settings import use_keras_defaults
from kerastrain.cli.terminal import messages_to_terminal, quiet_tensorflow
from kerastrain.errors import Interrupted, KerastrainError, UsageError, suggestion
from kerastrain.recipe import shipped_recipes

# Repeats each module's SUMMARY, so that listing the commands imports none of them.
COMMANDS = {
    "train": "Train a recipe, or go on with an interrupted run.",
    "schema": "Show what the columns of a table are taken for; write it to a file to edit.",
    "evaluate": "Measure a run's exported model on the test split.",
    "predict": "Predict every row of a table with a published model; report drift.",
    "export": "Publish a run's model from a checkpoint, also for LiteRT, ONNX and OpenVINO.",
    "explain": "Show which columns a run's exported model needs (permutation importance).",
    "serve": "Answer requests to published models over REST and gRPC, as TensorFlow Serving does.",
    "versions": "List a model's versions, compare two, deploy one, go back.",
    "checkpoints": "List, verify, pin, delete or go back to a run's checkpoints.",
    "find_lr": "Run a learning-rate range test and suggest a learning rate.",
    "replay": "Try stopping criteria on recorded runs: what each would have saved and lost.",
    "verify_resume": "Prove exact resume: kill a training many times and compare every byte.",
}

# Commands whose work lies in files, in answers to requests, or in their exit status; what they
# print tells of it, unless it was asked for as JSON.
WORKS = ("train", "export", "predict", "serve", "verify_resume")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: the process's own) and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    is_work = bool(arguments) and arguments[0] in WORKS
    remark = "warning: what is printed is lost from here on, the work goes on"
    with (
        best_effort_output(remark=remark if is_work else None) as stdout,
        messages_to_terminal(),
    ):
        status = _reporting_errors(lambda: _dispatch(arguments))
        sys.stdout.flush()
        if stdout is None or stdout.lost is None:
            return status
        is_product = not is_work or {"--json", "--dry_run", "--help"} & {*arguments}
        return _status_without_output(status, stdout.lost) if is_product else status


def _status_without_output(status: int, lost: OSError) -> int:
    """That of a command whose product could not be written."""
    if lost.errno == errno.EPIPE:  # The reader has what it wanted: `| head`.
        return status or 128 + signal.SIGPIPE
    print(f"kerastrain: error: The output could not be written: {lost.strerror}.", file=sys.stderr)
    return status or 1


def _reporting_errors(run: Callable[[], int]) -> int:
    try:
        return run()
    except Interrupted as error:
        print(f"kerastrain: {error}", file=sys.stderr)
        return error.exit_status
    except KerastrainError as error:
        print(f"kerastrain: error: {error}", file=sys.stderr)
        return error.exit_status
    except PermissionError as error:
        told = f"{error.filename}: {error.strerror}. Does it belong to another user?"
        print(f"kerastrain: error: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kerastrain: interrupted.", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "-help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"kerastrain {kerastrain.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UsageError(_unknown_command(name))
    # absl is only needed from here on.
    from kerastrain.cli.command_line import command_help, is_help_asked, parse_flags

    module = importlib.import_module(f"kerastrain.cli.{name}")
    if is_help_asked(rest):
        print(command_help(name, module.SUMMARY, module.FLAGS))
        if hasattr(module, "details"):
            print("\n" + module.details())
        return 0
    values = parse_flags(name, module.FLAGS, rest)
    quiet_tensorflow()
    use_keras_defaults()
    return module.run(values)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        "kerastrain: train, stop, survive and publish Keras models.\n\n"
        "Usage: kerastrain COMMAND --flag=value …\n\n"
        f"Commands:\n{commands}\n\n"
        f"Recipes: {', '.join(shipped_recipes())}, or a file of your own (--recipe=FILE.py).\n\n"
        "'kerastrain COMMAND --help' lists a command's flags; 'kerastrain --version' "
        "says which version this is."
    )


def _unknown_command(name: str) -> str:
    if name.startswith("-"):
        return f"Expected a command before '{name}'; the commands are {', '.join(COMMANDS)}."
    return (
        f"There is no command '{name}'; the commands are {', '.join(COMMANDS)}."
        f"{suggestion(name, COMMANDS)}"
    )
