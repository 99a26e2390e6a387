"""`kerastrain evaluate`: measure a run's exported model on the test split.

    kerastrain evaluate --workdir=runs/mnist
    kerastrain evaluate --workdir=runs/mnist --json     # one line {"metrics": {…}}

The data are loaded as the run loaded them, must be the same bytes, and go as raw
rows through the SavedModel that was published: what is measured is what is served.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.errors import DataError, ExportError, UsageError, WorkdirError
from kerastrain.options import TrainOptions
from kerastrain.workdir import Workdir, read_json

if TYPE_CHECKING:
    from kerastrain.data.source import Data

SUMMARY = "Measure a run's exported model on the test split."
FLAGS = flags.FlagValues()

flags.DEFINE_string("workdir", None, "The run's folder, as given to train.", flag_values=FLAGS)
flags.DEFINE_string(
    "data", None, "Where the table lies now. Default: where the run found it.", flag_values=FLAGS
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Where the data set's files lie now. Default: where the run found them.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json", False, 'Print one line {"metrics": {…}} and nothing else.', flag_values=FLAGS
)


def run(values: flags.FlagValues) -> int:
    """Evaluates the newest version, prints its metrics, and returns the exit status."""
    if not values.workdir:
        raise UsageError("--workdir is missing: the folder of the run whose export is evaluated.")
    workdir = Workdir(os.path.expanduser(values.workdir))
    recorded = recorded_run(workdir)
    folder = newest_version(workdir, recorded)
    if values.json:
        # One line and nothing else: what is only to be known is not said; warnings are.
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    # From here on it takes TensorFlow, which comes with the recipe's data.
    from kerastrain.export.manifest import read_manifest, task_from_json
    from kerastrain.export.scoring import evaluate_export

    task = task_from_json(read_manifest(folder).get("task"))
    data = load_data_of(recorded, data=values.data, data_dir=values.data_dir)
    metrics = evaluate_export(folder, data, task=task)
    if values.json:
        print(json.dumps({"metrics": metrics}))
    else:
        _print_table(folder, metrics, rows=len(data.test) if data.test else 0)
    return 0


def recorded_run(workdir: Workdir) -> dict[str, Any]:
    """The record of the run in a work directory.

    Raises:
        WorkdirError: there is no run, or it was started from Python and has no recipe.
    """
    if not workdir.run_file.exists():
        raise WorkdirError(
            f"--workdir={workdir} holds no run. Train one first: "
            f"kerastrain train --recipe=… --workdir={workdir}"
        )
    recorded = read_json(workdir.run_file)
    missing = [name for name in ("recipe", "resolved", "data_fingerprint") if name not in recorded]
    if missing:
        raise WorkdirError(f"{workdir.run_file} lacks '{missing[0]}'; it is not a run's record.")
    if recorded["recipe"] is None:
        raise WorkdirError(
            f"The run in {workdir} was started from Python (kerastrain.train), so its data cannot "
            "be loaded again from here. Evaluate it there: "
            "kerastrain.export.scoring.evaluate_export(VERSION_FOLDER, data); the metrics "
            "measured at the export are in its manifest.json."
        )
    return recorded


def newest_version(workdir: Workdir, recorded: dict[str, Any]) -> Path:
    """The folder of the newest published version of the run's model.

    Raises:
        ExportError: nothing is published yet.
    """
    from kerastrain.export.manifest import versions

    exports = sorted(workdir.exports.iterdir()) if workdir.exports.is_dir() else []
    bases = [base for base in exports if versions(base)]
    # Exports of other names can only have been put there by hand.
    own = [base for base in bases if base.name == Path(recorded["recipe"]).stem] or bases
    if not own:
        raise ExportError(
            f"Nothing is exported yet in {workdir}: the run is not finished. Give its train "
            "command again to go on with it."
        )
    return own[0] / str(versions(own[0])[-1])


def load_data_of(recorded: dict[str, Any], *, data: str | None, data_dir: str | None) -> Data:
    """The run's data, from where they lie now.

    Raises:
        DataError: they cannot be loaded, or are not those the run was trained on.
    """
    from kerastrain.recipe import load_recipe

    options = TrainOptions.from_json(recorded["resolved"])
    given = {"data": data, "data_dir": data_dir}
    moved: dict[str, Any] = {name: os.path.expanduser(path) for name, path in given.items() if path}
    options = dataclasses.replace(options, **moved)
    loaded = load_recipe(recorded["recipe"]).recipe.load_data(options)
    if loaded.fingerprint() != recorded["data_fingerprint"]:
        where = options.data or options.data_dir or "the recipe's data"
        raise DataError(
            f"The data ({where}) are not those that the run was trained on: their fingerprint "
            "differs, so rows of its training may be among the test rows now. Give the location "
            "of the original data by --data or --data_dir."
        )
    return loaded


def _print_table(folder: Path, metrics: dict[str, float], *, rows: int) -> None:
    from rich.console import Console
    from rich.table import Table

    print(f"{folder} on {rows:,} test rows")
    if not metrics:
        print("Its manifest names no task, so there is nothing to score.")
        return
    table = Table("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.6g}")
    Console().print(table)
