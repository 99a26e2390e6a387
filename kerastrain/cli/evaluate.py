"""`kerastrain evaluate`: measure a run's exported model on the test split.

    kerastrain evaluate --workdir=runs/mnist
    kerastrain evaluate --workdir=runs/mnist --json     # one line {"metrics": {…}, …}

The data are loaded as the run loaded them, must be the same bytes, and go as raw
rows through the SavedModel that was published: what is measured is what is served.
The same, with pictures, is left in the run's report (RUN/report/index.html).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.errors import DataError, ExportError, UsageError, WorkdirError
from kerastrain.options import TrainOptions
from kerastrain.report import (
    MAX_CLASSES,
    calibration_rows,
    confusion_rows,
    metric_rows,
    write_evaluation,
)
from kerastrain.text_table import aligned
from kerastrain.workdir import Workdir, read_json, strict_json

if TYPE_CHECKING:
    from kerastrain.data.source import Data

logger = logging.getLogger(__name__)

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
flags.DEFINE_integer(
    "bootstrap",
    1000,
    "Resamples of the test rows for the confidence intervals; 0 computes none.",
    flag_values=FLAGS,
)
flags.DEFINE_float("confidence", 0.95, "Of the intervals, between 0 and 1.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "json",
    False,
    'Print one line {"metrics": {…}, "intervals": {…}, "confusion": …, "calibration": …} and '
    "nothing else.",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Evaluates the newest version, prints what was measured, and returns the exit status."""
    if values.bootstrap < 0 or not 0 < values.confidence < 1:
        raise UsageError(
            f"--bootstrap is {values.bootstrap} and --confidence {values.confidence:g}; expected a "
            "number of resamples (0: no intervals) and a share between 0 and 1, as 0.95."
        )
    workdir, recorded, folder = published(values)
    # From here on it takes TensorFlow, which comes with the recipe's data.
    from kerastrain.export.evaluation import evaluate
    from kerastrain.export.manifest import read_manifest, task_from_json
    from kerastrain.export.scoring import answers_of_test_rows

    task = task_from_json(read_manifest(folder).get("task"))
    data = load_data_of(recorded, data=values.data, data_dir=values.data_dir)
    outputs = answers_of_test_rows(folder, data)
    assert data.test is not None  # there were answers for it
    found = evaluate(
        data.task or task,
        outputs,
        data.test.targets,
        weights=data.test.weights,
        resamples=values.bootstrap,
        confidence=values.confidence,
    )
    content = strict_json(found.to_json())
    if values.json:
        print(json.dumps(content))
    else:
        print("\n".join(lines(folder, content)))
    model = str(folder.relative_to(workdir.path))
    write_report(values, lambda: write_evaluation(workdir, found, model=model))
    return 0


def published(values: flags.FlagValues) -> tuple[Workdir, dict[str, Any], Path]:
    """--workdir, the record of its run, and its newest published version.

    Raises:
        UsageError, WorkdirError, ExportError: there is none.
    """
    if not values.workdir:
        raise UsageError("--workdir is missing: the folder of the run whose export is asked.")
    workdir = Workdir(os.path.expanduser(values.workdir))
    recorded = recorded_run(workdir)
    folder = newest_version(workdir, recorded)
    if values.json:
        # One line and nothing else: what is only to be known is not said; warnings are.
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    return workdir, recorded, folder


def write_report(values: flags.FlagValues, write: Callable[[], Path]) -> None:
    """Writes a part of the report and says where it is; failing, it only warns.

    What was measured has been printed: a run's folder that is only readable is no reason to fail.
    """
    try:
        page = write()
    except WorkdirError as error:
        logger.warning("The report was not written: %s", error)
        return
    if not values.json:
        print(f"\nreport: {page}")


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
    recipe = load_recipe(recorded["recipe"]).recipe
    with _without_remarks():
        loaded = recipe.load_data(options)
    if loaded.fingerprint() != recorded["data_fingerprint"]:
        where = options.data or options.data_dir or "the recipe's data"
        raise DataError(
            f"The data ({where}) are not those that the run was trained on: their fingerprint "
            "differs, so rows of its training may be among the test rows now. Give the location "
            "of the original data by --data or --data_dir. (Or they were encoded by another "
            "version of kerastrain.)"
        )
    return loaded


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """What is only told about data was told by the training; warnings are shown again."""
    told = logging.getLogger("kerastrain.data")
    level = told.level
    told.setLevel(logging.WARNING)
    try:
        yield
    finally:
        told.setLevel(level)


def lines(folder: Path, found: Mapping[str, Any]) -> list[str]:
    """What is printed of an evaluation's JSON."""
    shown = [f"{folder} on {found['rows']:,} test rows"]
    if not found["metrics"]:
        return [*shown, "Its manifest names no task, so there is nothing to score."]
    shown += ["", *aligned(metric_rows(found))]
    confusion, calibration = found["confusion"], found["calibration"]
    if confusion and len(confusion["classes"]) <= MAX_CLASSES:
        shown += ["", "confusion (rows: true, columns: predicted)", *_matrix(confusion)]
    if calibration:
        shown += ["", f"calibration (of the rows, the share in which {calibration['event']})"]
        shown += aligned(calibration_rows(calibration))
    return shown


def _matrix(confusion: Mapping[str, Any]) -> list[str]:
    """The confusion matrix; where the classes' names are too long for columns, by number."""
    headings, *rows = confusion_rows(confusion)
    table = aligned([headings, *rows])
    if max(map(len, table)) <= shutil.get_terminal_size().columns:
        return table
    numbers = [f"({place})" for place in range(1, len(rows) + 1)]
    named = [(f"{n} {_shortened(row[0])}", *row[1:]) for n, row in zip(numbers, rows, strict=True)]
    return aligned([(headings[0], *numbers, headings[-1]), *named])


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
