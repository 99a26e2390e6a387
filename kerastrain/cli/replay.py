"""`kerastrain replay`: what other stopping criteria would have done in runs that are recorded.

    kerastrain replay --workdir=runs/mnist                        # a selection of criteria
    kerastrain replay --workdir=runs/a,runs/b --stop="gl(2)" --stop="patience(3)"
    kerastrain replay --workdir=runs/mnist --stop="up(2)" --plot=replay.png

It reads `run.json` and `metrics.jsonl`; it changes nothing and needs no TensorFlow.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from kerastrain import plots
from kerastrain.cli.checkpoints import objective_of
from kerastrain.cli.command_line import Folders
from kerastrain.errors import OptionsError, UsageError, WorkdirError
from kerastrain.options import TrainOptions
from kerastrain.text_table import aligned
from kerastrain.training.stopping import (
    CRITERIA,
    Criterion,
    Evaluation,
    Outcome,
    outcome,
    parse_criterion,
    read_evaluations,
)
from kerastrain.training.stopping.criterion import shown
from kerastrain.workdir import Workdir, read_json, strict_json

SUMMARY = "Try stopping criteria on recorded runs: what each would have saved and lost."
FLAGS = flags.FlagValues()

# From impatient to patient, one of each kind; what needs a scale of the metric is left out.
SELECTION = (
    "patience(1)",
    "patience(3)",
    "patience(5)",
    "patience(10)",
    "smoothed(patience(3), beta=0.7)",
    "gl(2)",
    "gl(5)",
    "pq(0.5, k=5)",
    "up(2, k=3)",
    "up(3, k=5)",
)

flags.DEFINE(
    Folders(),
    "workdir",
    None,
    "Folders of runs, as given to train, joined by commas. Runs that trained to their end show "
    "the most: nobody knows what would have come after a stop.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "stop",
    [],
    "A criterion, or several joined by 'and' and 'or'. Default: a selection.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "plot",
    None,
    "Draw the objective and where each criterion stops into this file (PNG, SVG or PDF). Needs "
    "matplotlib (pip install 'kerastrain[plot]').",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json", False, "Print JSON, an object a line and nothing else.", flag_values=FLAGS
)


def details() -> str:
    """The criteria and their arguments, for --help."""
    lines = ["Criteria:"]
    for name, criterion in CRITERIA.items():
        arguments = ", ".join(
            str(parameter.replace(annotation=inspect.Parameter.empty))
            for parameter in inspect.signature(criterion).parameters.values()
        )
        first_line = (criterion.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name}({arguments})\n      {first_line}")
    lines.append(
        "\nThey are explained, with formulas and sources, in the docstrings of "
        "kerastrain.training.stopping."
    )
    return "\n".join(lines)


@dataclass(frozen=True)
class Replayed:
    """One criterion over one run's record.

    Attributes:
        run: the work directory.
        rule: the criterion as written; `is_own`: whether the run was trained with it.
    """

    run: str
    rule: str
    is_own: bool
    found: Outcome


def run(values: flags.FlagValues) -> int:
    """Replays every criterion over every run, prints a table, and returns the exit status."""
    if not values.workdir:
        raise UsageError("--workdir is missing: the folders of the runs to replay.")
    if values.plot:
        plots.check_can_draw(Path(values.plot))
    given = [parse_criterion(text) for text in values.stop or SELECTION]
    rules = list({str(rule): rule for rule in given}.values())
    replayed: list[Replayed] = []
    for folder in dict.fromkeys(values.workdir):
        replayed += replay(Workdir(os.path.expanduser(folder)), rules)
    if values.json:
        for each in replayed:
            print(json.dumps(strict_json(as_plain_values(each))))
    else:
        print_tables(replayed)
    if values.plot:
        found = [(each.run, each.rule, each.found) for each in replayed]
        plots.draw_replay(found, Path(values.plot))
        if not values.json:
            print(f"picture: {values.plot}")
    return 0


def replay(workdir: Workdir, rules: Sequence[Criterion]) -> list[Replayed]:
    """Every rule over the record of one run; the rule that it was trained with comes first.

    Raises:
        WorkdirError: there is no run, or no evaluation yet.
        ObjectiveError: a rule needs what the run did not record.
    """
    objective = objective_of(workdir)
    if objective is None:
        raise WorkdirError(f"{workdir.run_file} names no objective; nothing can be replayed.")
    evaluations = read_evaluations(workdir.metrics_file)
    if not evaluations:
        raise WorkdirError(f"The run in {workdir} has recorded no evaluation yet.")
    own = own_rule(workdir)
    wanted = [rule for rule in rules if str(rule) != str(own)]
    return [
        Replayed(str(workdir), str(rule), rule is own, outcome(rule, evaluations, objective))
        for rule in ([] if own is None else [own]) + wanted
    ]


def own_rule(workdir: Workdir) -> Criterion | None:
    """The rule that a run was trained with; None for one written in Python."""
    options = TrainOptions.from_json(read_json(workdir.run_file)["resolved"])
    try:
        return parse_criterion(options.stop_rule)
    except OptionsError:
        return None


def print_tables(replayed: Sequence[Replayed]) -> None:
    """A table for each run and, of several, one of the means."""
    runs = list(dict.fromkeys(each.run for each in replayed))
    for name in runs:
        own = [each for each in replayed if each.run == name]
        print_run(name, own)
    if len(runs) > 1:
        print_means(replayed)


def print_run(name: str, replayed: Sequence[Replayed]) -> None:
    metric = replayed[0].found.objective.name
    head = ("criterion", "stops at step", "epoch", f"best {metric}", "lost", "saved", "of steps")
    rows = [(each.rule + " *" * each.is_own, *_cells(each.found)) for each in replayed]
    print(f"{name}: {_record(replayed[0].found)}")
    print("\n".join(aligned([head, *rows])))
    if any(each.is_own for each in replayed):
        print("* the run's own")
    print()


def _record(found: Outcome) -> str:
    metric, best, end = found.objective.name, found.best_of_all, found.end
    reached = f"{metric} was never a finite number"
    if best is not None:
        reached = f"best {metric} {shown(best.value(metric))} at step {best.step:,}"
    return f"recorded to step {end.step:,} (epoch {end.epoch:g}), {reached}"


def _cells(found: Outcome) -> tuple[str, ...]:
    best = "-" if found.best is None else shown(found.best.value(found.objective.name))
    lost = "-" if found.lost is None else _lost(found)
    if found.stopped_at is None:
        return ("to the end", f"{found.last.epoch:g}", best, lost, "-", "-")
    step, epoch = f"{found.stopped_at.step:,}", f"{found.stopped_at.epoch:g}"
    return step, epoch, best, lost, f"{found.seconds_saved:,.1f} s", f"{found.share_saved:.0%}"


def _lost(found: Outcome) -> str:
    return f"{found.lost:.2g} ({found.lost_percent:.1f} %)" if found.lost else "nothing"


def print_means(replayed: Sequence[Replayed]) -> None:
    """The mean over the runs, of those criteria that were tried on all."""
    runs = {each.run for each in replayed}
    rows = [("criterion", "stopped", "lost", "at worst", "saved, of steps")]
    for rule in dict.fromkeys(each.rule for each in replayed):
        found = [each.found for each in replayed if each.rule == rule]
        if len(found) == len(runs):
            losses = [each.lost_percent for each in found]
            stopped = sum(each.stopped_at is not None for each in found)
            saved = sum(each.share_saved for each in found) / len(found)
            mean, worst = sum(losses) / len(losses), max(losses)
            rows.append(
                (
                    rule,
                    f"{stopped} of {len(found)}",
                    f"{mean:.1f} %",
                    f"{worst:.1f} %",
                    f"{saved:.0%}",
                )
            )
    print(f"Mean over {len(runs)} runs; lost: in percent of the best error")
    print("\n".join(aligned(rows)))


def as_plain_values(replayed: Replayed) -> dict[str, Any]:
    """One line of --json."""
    found = replayed.found
    metric = found.objective.name

    def at(evaluation: Evaluation | None) -> dict[str, Any] | None:
        if evaluation is None:
            return None
        return {
            "step": evaluation.step,
            "epoch": evaluation.epoch,
            metric: evaluation.value(metric),
        }

    stopped = found.stopped_at
    return {
        "workdir": replayed.run,
        "stop": replayed.rule,
        "is_own": replayed.is_own,
        "stopped_at_step": None if stopped is None else stopped.step,
        "because": found.says,
        "best": at(found.best),
        "best_of_all": at(found.best_of_all),
        "lost": found.lost,
        "lost_percent": found.lost_percent,
        "seconds_saved": found.seconds_saved,
        "share_of_steps_saved": found.share_saved,
    }
