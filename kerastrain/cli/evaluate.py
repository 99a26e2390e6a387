"""`kerastrain evaluate`: measure a run's exported model on the test split.

    kerastrain evaluate --workdir=runs/mnist
    kerastrain evaluate --workdir=runs/mnist --json     # one line {"metrics": {…}, …}

The data are loaded as the run loaded them, must be the same bytes, and go as raw
rows through the SavedModel that was published: what is measured is what is served.
The same, with pictures, is left in the run's report (RUN/report/index.html).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from kerastrain.cli import recorded_runs
from kerastrain.errors import UsageError, WorkdirError
from kerastrain.report import (
    MAX_CLASSES,
    calibration_rows,
    class_rows,
    confusion_rows,
    metric_rows,
    write_evaluation,
)
from kerastrain.text_table import aligned
from kerastrain.workdir import strict_json

logger = logging.getLogger(__name__)

SUMMARY = "Measure a run's exported model on the test split."
FLAGS = flags.FlagValues()

recorded_runs.define_flags(FLAGS)
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
    workdir, recorded, folder = recorded_runs.published(values)
    data = recorded_runs.load_data(workdir, recorded, values)
    # From here on it takes TensorFlow.
    from kerastrain.export.evaluation import evaluate
    from kerastrain.export.manifest import read_manifest, task_from_json
    from kerastrain.export.scoring import answers_of_test_rows

    task = task_from_json(read_manifest(folder).get("task"))
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


def lines(folder: Path, found: Mapping[str, Any]) -> list[str]:
    """What is printed of an evaluation's JSON."""
    shown = [f"{folder} on {found['rows']:,} test rows"]
    if not found["metrics"]:
        return [*shown, "Its manifest names no task, so there is nothing to score."]
    shown += ["", *aligned(metric_rows(found))]
    if by_class := class_rows(found):
        shown += ["", *aligned(by_class)]
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
