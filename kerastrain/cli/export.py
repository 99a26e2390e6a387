"""`kerastrain export`: publish a run's model again, from any checkpoint, in further formats.

    kerastrain export --workdir=runs/mnist --formats=litert,onnx
    kerastrain export --workdir=runs/mnist --checkpoint=latest --to=/models/mnist
    kerastrain export --workdir=runs/adult --formats=all --json

Data and model are made as the run made them, the checkpoint is restored strictly, and the
version appears in the run's export folder (or --to) only when it answers as that model does.
A format that does not is left out, with the reason; the SavedModel is always there.
"""

from __future__ import annotations

import json
import logging
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.cli import recorded_runs
from kerastrain.cli.restoring import BEST, Chosen, choose_checkpoint, restored
from kerastrain.cli.terminal import quieter
from kerastrain.errors import Declined, UsageError
from kerastrain.export.formats import catalog
from kerastrain.export.publish_condition import PublishCondition
from kerastrain.objective import Objective
from kerastrain.text_table import aligned
from kerastrain.training.checkpoint_files import size_text
from kerastrain.workdir import Workdir, check_folder, read_json, strict_json

if TYPE_CHECKING:
    from kerastrain.data.source import Data
    from kerastrain.export.publish_decision import Decision
    from kerastrain.export.publishing import Published

SUMMARY = "Publish a run's model from a checkpoint, also for LiteRT, ONNX and OpenVINO."
FLAGS = flags.FlagValues()

recorded_runs.define_flags(FLAGS)
flags.DEFINE_string(
    "checkpoint",
    BEST,
    "Which weights: best, latest, or the step of a checkpoint (see 'kerastrain checkpoints').",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "formats",
    ",".join(catalog.DEFAULT),
    f"What the version holds besides the SavedModel: some of {', '.join(catalog.FORMATS)}; or all.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "to",
    None,
    "The folder of versions to publish into. Default: the run's own, WORKDIR/export/RECIPE.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "publish_if",
    None,
    "Publish only when this holds, e.g. 'val_accuracy > deployed' or 'rmse < deployed - 50 and "
    "r2 > 0.8'. Both models are asked now, about the same rows (val_: validation, otherwise test). "
    "When it does not hold, the exit status is 3.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "keep_versions",
    None,
    "Afterwards remove all but so many versions: what stays are this one, the one that 'kerastrain "
    "versions --rollback' would lead to, and the newest of the others.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json",
    False,
    'Print one line {"version": …, "formats": {…}, "left_out": {…}, …} and nothing else.',
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Publishes the checkpoint, prints what is in the version, and returns the exit status."""
    if not values.workdir:
        raise UsageError("--workdir is missing: the folder of the run whose model is exported.")
    if values.keep_versions is not None and values.keep_versions < 1:
        raise UsageError(f"--keep_versions={values.keep_versions}; expected 1 or more.")
    condition = PublishCondition.parse(values.publish_if) if values.publish_if else None
    asked = values.formats.split(",")
    names = catalog.parse_formats(asked)
    if catalog.ALL not in [name.strip().lower() for name in asked]:
        catalog.check_installed(names)  # of all formats, those that can be made are made
    workdir = Workdir(os.path.expanduser(values.workdir))
    recorded = recorded_runs.recorded_run(workdir)
    chosen = choose_checkpoint(workdir, values.checkpoint)
    base = workdir.exports / Path(recorded["recipe"]).stem
    if values.to:
        base = Path(os.path.expanduser(values.to))
    check_folder(base, flag="to" if values.to else "workdir")
    if values.json:
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    # From here on it takes TensorFlow, which comes with the recipe's data.
    data = recorded_runs.load_data(workdir, recorded, values)
    judge = None if condition is None else _judge(condition, base, data, recorded)
    try:
        published = _publish(
            workdir, recorded, chosen, data, base=base, formats=names, accept=judge
        )
    except Declined as error:
        print(json.dumps(strict_json(error.decision.to_json())) if values.json else error)
        return error.exit_status
    removed = _remove_old(published.path.parent, values.keep_versions)
    if values.json:
        found = {**content(published, chosen), "removed": removed}
        print(json.dumps(strict_json(found)))
    else:
        said = [f"removed: version {', '.join(map(str, removed))}"] if removed else []
        print("\n".join([*lines(published, chosen), *said]))
    return 0


def _remove_old(base: Path, keep: int | None) -> list[int]:
    from kerastrain.export.version_folders import remove_old

    return [] if keep is None else remove_old(base, keep=keep)


def _judge(
    condition: PublishCondition, base: Path, data: Data, recorded: Mapping[str, Any]
) -> Callable[[Path], Decision]:
    """Decides about a candidate's folder; what could not be decided is an error already now."""
    from kerastrain.export.manifest import NAME, task_from_json
    from kerastrain.export.publish_decision import check, decide

    check(condition, data, data.task, base=base)

    def judge(folder: Path) -> Decision:
        task = task_from_json(read_json(folder / NAME)["task"])
        fingerprint = recorded["data_fingerprint"]
        return decide(condition, folder, base, data, task, fingerprint=fingerprint)

    return judge


def _publish(
    workdir: Workdir,
    recorded: Mapping[str, Any],
    chosen: Chosen,
    data: Data,
    *,
    base: Path,
    formats: tuple[str, ...],
    accept: Callable[[Path], Decision] | None,
) -> Published:
    from kerastrain.export.publishing import publish

    with (
        restored(workdir, recorded, chosen, data) as model,
        # Publishing warns of what is left out; here that is a part of what is printed.
        quieter("kerastrain.export.publishing", logging.ERROR),
    ):
        facts = facts_of(workdir, recorded, chosen, data)
        return publish(model, data, base=base, facts=facts, formats=formats, accept=accept)


def facts_of(
    workdir: Workdir, recorded: Mapping[str, Any], chosen: Chosen, data: Data
) -> dict[str, Any]:
    """What the manifest says of the run; of its best weights the same as after the training."""
    result = read_json(workdir.result_file) if workdir.result_file.exists() else {}
    is_best = chosen.kind == BEST
    objective = recorded["resolved"].get("objective")
    return {
        "recipe": recorded["recipe"],
        "options": dict(recorded["resolved"]),
        "found_learning_rate": recorded.get("found_learning_rate"),
        "step": chosen.step,
        "checkpoint": chosen.kind,
        "objective": None if objective is None else str(Objective.parse(objective)),
        "best": result.get("best") if is_best else None,
        "stopped": result.get("stopped", "The run has not ended."),
        "data": {**data.description, "fingerprint": recorded["data_fingerprint"]},
    }


def content(published: Published, chosen: Chosen) -> dict[str, Any]:
    """What --json prints."""
    return {
        "version": str(published.path),
        "checkpoint": chosen.kind,
        "step": chosen.step,
        "metrics": dict(published.metrics),
        "formats": dict(published.formats),
        "left_out": dict(published.left_out),
        "digest": published.digest,
    }


def lines(published: Published, chosen: Chosen) -> list[str]:
    """What is printed: a table of the formats, and what is not in the version."""
    header = ("format", "file", "size", "largest error", "of", "labels agree", "takes")
    rows = [_row(name, report) for name, report in published.formats.items()]
    shown = [
        f"{published.path}: the weights of step {chosen.step:,} ({chosen.kind})",
        "",
        *aligned([header, *rows], left=(0, 1, 4, 6)),
    ]
    if published.left_out:
        shown += ["", "not published:"]
        for file, reason in published.left_out.items():
            shown += textwrap.wrap(
                f"{file}: {reason}", 100, initial_indent="  ", subsequent_indent="    "
            )
    if any(report["takes"] == "features" for report in published.formats.values()):
        shown += [
            "",
            f"Formats that take features are the network behind the encoder; "
            f"{catalog.PREPROCESSING} beside them describes the encoding.",
        ]
    return shown


def _number(error: float) -> str:
    return f"{error:,.0f}" if error >= 100 else f"{error:.2g}"


def _row(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    error, agreement = report["error"], report["agreement"]
    return (
        name,
        report["file"],
        size_text(report["bytes"]),
        "in tolerance" if error is None else _number(error),
        report["error_of"],
        "-" if agreement is None else f"{agreement:.1%}",
        report["takes"],
    )
