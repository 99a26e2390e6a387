"""`kerastrain verify_resume`: the user's own proof of exact resume.

    kerastrain verify_resume --recipe=mnist_cnn --data_dir=DIR --kills=20

Trains once undisturbed, then again while SIGKILL ends the process at random instants and
the same command starts it again, and compares every byte of what is left. Takes the flags
of `kerastrain train`, but those that make no sense here.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from kerastrain.cli import train
from kerastrain.cli.command_line import given_flags, parse_flags
from kerastrain.errors import Interrupted, OptionsError, WorkdirError
from kerastrain.text_table import aligned
from kerastrain.training.signals import SignalReceived, Signals
from kerastrain.workdir import check_folder

if TYPE_CHECKING:
    from kerastrain.resume_check.proof import Kill, Report

SUMMARY = "Prove exact resume: kill a training many times and compare every byte."
# An end by the clock is not the same twice, and the others are about one run of many starts.
LEFT_OUT = ("workdir", "override", "new_version", "dry_run", "more_epochs", "max_seconds")
FLAGS = copy.deepcopy(train.FLAGS)
for _name in LEFT_OUT:
    delattr(FLAGS, _name)

flags.DEFINE_integer("kills", 20, "How many SIGKILLs.", flag_values=FLAGS)
flags.DEFINE_integer(
    "kill_seed",
    0,
    "Decides the instants of the kills, as far as the clock lets.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "workdir",
    None,
    "A new or empty folder for the runs, which stay there. Default: a temporary one, removed at "
    "the end.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "keep",
    False,
    "Leave the temporary folder. When something differs, it is left in any case.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json", False, "Print the report as one JSON object, on the last line.", flag_values=FLAGS
)


def run(values: flags.FlagValues) -> int:
    """Kills, compares, prints the report; exit status 0 when no byte differs, else 1."""
    if values.kills < 1:
        raise OptionsError(f"--kills is {values.kills}; expected a whole number of at least 1.")
    arguments = train_arguments(values)
    # What is wrong with them is told here, in a second, and not by a process.
    train.options_from(parse_flags("train", train.FLAGS, arguments))
    from kerastrain.resume_check.proof import Proof

    with _answering_signals(), _folder(values.workdir, keep=values.keep) as folder:
        proof = Proof(arguments, folder=folder.path, kills=values.kills, seed=values.kill_seed)
        report = proof.run()
        folder.is_kept = folder.is_kept or bool(report.differences)
    print(as_json(report) if values.json else "\n".join(report_lines(report)))
    return 1 if report.differences else 0


def train_arguments(values: flags.FlagValues) -> list[str]:
    """The flags that were given and are `kerastrain train`'s, as they are given to it."""
    return given_flags(values, [name for name in train.FLAGS if name not in LEFT_OUT])


def as_json(report: Report) -> str:
    """{"kills": [{"number", "run", "phase", "step", "resumed_step", "lost_steps"}, …], …}."""
    kills = [{**dataclasses.asdict(kill), "lost_steps": kill.lost_steps} for kill in report.kills]
    return json.dumps({**dataclasses.asdict(report), "kills": kills})


def report_lines(report: Report) -> list[str]:
    """The table of kills, and the verdict."""
    lines = ["", *_table(report.kills), ""]
    kills = f"{len(report.kills):,} {'kill' if len(report.kills) == 1 else 'kills'}"
    if not report.differences:
        runs = f"{report.runs:,} {'run' if report.runs == 1 else 'runs'}"
        lines.append(f"{runs} compared, {report.values:,} values each.")
        return [*lines, f"{kills}; no byte differs from the undisturbed run."]
    listed = [f"  {line}" for line in report.differences]
    return [*lines, f"{kills}; run {report.runs} differs from the undisturbed run:", *listed]


def _table(kills: Sequence[Kill]) -> list[str]:
    """Columns of text, numbers to the right. Lost are steps that had to be repeated."""
    head = ("kill", "run", "phase", "step", "goes on from", "lost at least")
    rows = [
        (
            str(kill.number),
            str(kill.run),
            kill.phase,
            "" if kill.step is None else f"{kill.step:,}",
            "the beginning" if kill.resumed_step is None else f"{kill.resumed_step:,}",
            f"{kill.lost_steps:,}",
        )
        for kill in kills
    ]
    return aligned([head, *rows], left=(2,))


@dataclasses.dataclass
class _Folder:
    path: Path
    is_kept: bool


@contextlib.contextmanager
def _folder(given: str | None, *, keep: bool) -> Iterator[_Folder]:
    """Where the runs lie; if nobody wants them, they are gone in the end."""
    if given:
        path = Path(os.path.expanduser(given))
        _make_empty(path)
        yield _Folder(path, is_kept=True)
        return
    folder = _Folder(Path(tempfile.mkdtemp(prefix="kerastrain-")), is_kept=keep)
    try:
        yield folder
    finally:
        if folder.is_kept:
            print(f"The runs and what they said lie in {folder.path}.")
        else:
            # A killed trainer's helper may still be about to end; it has files there.
            shutil.rmtree(folder.path, ignore_errors=True)


def _make_empty(path: Path) -> None:
    check_folder(path, flag="workdir")
    path.mkdir(parents=True, exist_ok=True)
    found = sorted(entry.name for entry in path.iterdir())
    if found:
        raise WorkdirError(
            f"--workdir={path} holds something ({', '.join(found[:3])}); "
            "expected a new or an empty folder."
        )


@contextlib.contextmanager
def _answering_signals() -> Iterator[None]:
    """SIGTERM too ends the processes that were started before it ends this one."""
    with Signals() as signals:
        try:
            yield
        except SignalReceived as received:
            assert signals.received is not None
            raise Interrupted(
                f"Stopped by {signals.received.name}; nothing was proven.",
                exit_status=signals.exit_status,
            ) from received
