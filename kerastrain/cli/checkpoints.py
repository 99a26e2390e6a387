"""`kerastrain checkpoints`: list, verify, pin, delete or go back to a run's checkpoints.

    kerastrain checkpoints --workdir=runs/mnist                 # a table; also with --json
    kerastrain checkpoints --workdir=runs/mnist --verify        # reads every tensor, too
    kerastrain checkpoints --workdir=runs/mnist --pin=5000      # also while the run trains
    kerastrain checkpoints --workdir=runs/mnist --restore=5000  # sets newer ones aside

Only --verify needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping

from absl import flags

from kerastrain.cli.checkpoint_list import (
    as_plain_values,
    lines_about_others,
    list_checkpoints,
    table,
    verdict,
)
from kerastrain.errors import CheckpointError, UsageError, WorkdirError
from kerastrain.objective import Objective
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.training.rollback import forget_rollbacks
from kerastrain.workdir import Workdir, read_json

SUMMARY = "List, verify, pin, delete or go back to a run's checkpoints."
FLAGS = flags.FlagValues()

flags.DEFINE_string("workdir", None, "The run's folder, as given to train.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "verify",
    False,
    "Read every tensor of every checkpoint besides the checksums; exit status 1 when anything "
    "is damaged.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "pin",
    None,
    "Keep the checkpoint of this step until it is unpinned; also while the run trains.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "unpin", None, "Let the checkpoint of this step go when its time comes.", flag_values=FLAGS
)
flags.DEFINE_integer("delete", None, "Remove the checkpoint of this step.", flag_values=FLAGS)
flags.DEFINE_integer(
    "restore",
    None,
    "Go back to this step: newer checkpoints are set aside, not removed, and the same train "
    "command goes on from there.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json",
    False,
    "Print the list as one line of JSON and nothing else; also with --verify.",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Does the one thing asked for, says what was done, and returns the exit status."""
    if not values.workdir:
        raise UsageError("--workdir is missing: the folder of the run whose checkpoints are meant.")
    action, step = asked_for(values)
    workdir = Workdir(os.path.expanduser(values.workdir))
    objective = objective_of(workdir)
    files = CheckpointFiles(workdir.latest_checkpoints)
    if not files.folder.is_dir():
        raise CheckpointError(f"The run in {workdir} has saved no checkpoint yet.")
    if action in ("list", "verify"):
        verify = action == "verify"
        return show(files, objective, verify=verify, as_json=values.json)
    act = {"pin": pin, "unpin": unpin, "delete": delete, "restore": restore}[action]
    with _changing(workdir):
        said = act(workdir, files, step)
    print(said)
    return 0


def asked_for(values: flags.FlagValues) -> tuple[str, int]:
    """The action and its step (0 where it has none).

    Raises:
        UsageError: more than one action is asked for, or JSON of one that gives none.
    """
    steps = {name: values[name].value for name in ("pin", "unpin", "delete", "restore")}
    given = {name: step for name, step in steps.items() if step is not None}
    if values.verify:
        given["verify"] = 0
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in given)} are given; expected one of them at "
            "a time."
        )
    action, step = next(iter(given.items()), ("list", 0))
    if values.json and action not in ("list", "verify"):
        raise UsageError(f"--json goes with the list or --verify; --{action} prints no JSON.")
    return action, step


def objective_of(workdir: Workdir) -> Objective | None:
    """The objective of the run in a work directory; None when its record names none.

    Raises:
        WorkdirError: there is no run.
    """
    if not workdir.run_file.exists():
        raise WorkdirError(
            f"--workdir={workdir} holds no run. Give the folder that the run was trained in."
        )
    resolved = read_json(workdir.run_file).get("resolved")
    if not isinstance(resolved, Mapping):
        raise WorkdirError(f"{workdir.run_file} lacks 'resolved'; it is not a run's record.")
    return Objective.parse(resolved["objective"]) if resolved.get("objective") else None


# The list


def show(
    files: CheckpointFiles, objective: Objective | None, *, verify: bool, as_json: bool
) -> int:
    """Prints all checkpoints; returns 1 when they were to be verified and one is damaged.

    Raises:
        CheckpointError: there are none at all.
    """
    listed = list_checkpoints(files, objective, verify=verify)
    if not listed:
        others = "".join(f"\n  {line}" for line in lines_about_others(files))
        besides = f" besides these:{others}" if others else "."
        raise CheckpointError(f"There is no checkpoint in {files.folder}{besides}")
    if as_json:
        print(json.dumps(as_plain_values(listed, files, objective)))
    else:
        print("\n".join([*table(listed, objective), *lines_about_others(files)]))
        if verify:
            print(verdict(listed))
    return int(verify and any(one.damage for one in listed))


# What is done


def pin(workdir: Workdir, files: CheckpointFiles, step: int) -> str:
    files.pin(step)
    return f"The checkpoint of step {step} is kept until it is unpinned."


def unpin(workdir: Workdir, files: CheckpointFiles, step: int) -> str:
    files.unpin(step)
    return f"The checkpoint of step {step} goes when its time comes."


def delete(workdir: Workdir, files: CheckpointFiles, step: int) -> str:
    """Removes a checkpoint, unless no intact one would be left.

    Raises:
        CheckpointError: there is no such checkpoint, it is pinned, or no other is intact.
        WorkdirError: the run is training now.
    """
    with workdir.lock():
        files.require(step)
        record = files.record(step)
        if record is not None and record.pinned:
            raise CheckpointError(
                f"The checkpoint of step {step} is pinned. To remove it, give --unpin={step} first."
            )
        others = [other for other in files.steps() if other != step]
        if all(files.damage(other) is not None for other in others):
            raise CheckpointError(
                f"The checkpoint of step {step} is not removed: no other one is intact, so the "
                "run could not go on. To start anew, use another --workdir."
            )
        files.discard(step)
    return f"The checkpoint of step {step} is removed."


def restore(workdir: Workdir, files: CheckpointFiles, step: int) -> str:
    """Makes a checkpoint the newest one, from which the next start goes on.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        WorkdirError: the run is training now.
    """
    with workdir.lock():
        aside = files.go_back_to(step)
        record = files.record(step)
        forget_rollbacks(workdir, known=0 if record is None else record.rollbacks)
        # Only now: a finished run is finished until it can go on from somewhere else.
        workdir.result_file.unlink(missing_ok=True)
        workdir.stopped_file.unlink(missing_ok=True)
    lines = [f"The run in {workdir} stands at step {step}."]
    if aside:
        steps = ", ".join(map(str, aside))
        lines.append(f"set aside: {steps} in {files.set_aside}")
        lines.append(f"           --restore={aside[-1]} brings {aside[-1]} back")
    lines.append(f"next:      run the same train command to go on from step {step}")
    return "\n".join(lines)


@contextlib.contextmanager
def _changing(workdir: Workdir) -> Iterator[None]:
    """Says for people what the system says of files that cannot be changed."""
    try:
        yield
    except OSError as error:
        raise WorkdirError(f"--workdir={workdir} cannot be changed: {error}") from error
