"""`kerastrain explain`: which columns a run's exported model needs, by permutation importance.

    kerastrain explain --workdir=runs/adult
    kerastrain explain --workdir=runs/adult --metric=roc_auc --repeats=20 --plot=columns.png

Measured on the validation split, so the test split stays unseen by whoever drops a
column because of it. The same, with a picture, is left in the run's report.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from kerastrain.cli import recorded_runs
from kerastrain.cli.evaluate import write_report
from kerastrain.errors import UsageError
from kerastrain.plots import check_can_draw, draw_importance
from kerastrain.report import alike_note, importance_note, importance_rows, write_importance
from kerastrain.text_table import aligned
from kerastrain.workdir import strict_json

SUMMARY = "Show which columns a run's exported model needs (permutation importance)."
FLAGS = flags.FlagValues()
MAX_LINES = 50

recorded_runs.define_flags(FLAGS)
flags.DEFINE_integer(
    "rows", 10_000, "At most so many validation rows, chosen at random.", flag_values=FLAGS
)
flags.DEFINE_integer("repeats", 5, "How often each column is shuffled.", flag_values=FLAGS)
flags.DEFINE_string(
    "metric",
    None,
    "What becomes worse: a metric that evaluate prints. Default: loss for classes, rmse for "
    "numbers, pinball for quantiles.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "plot",
    None,
    "Draw the importances into this file, too (PNG, SVG or PDF). Needs matplotlib (pip install "
    "'kerastrain[plot]').",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json",
    False,
    'Print one line {"metric": …, "baseline": …, "columns": [{"name", "mean", "std"}, …], '
    '"alike": …} and nothing else.',
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Measures the newest version's columns, prints them, and returns the exit status."""
    if values.rows < 2 or values.repeats < 1:
        raise UsageError(
            f"--rows is {values.rows} and --repeats {values.repeats}; expected at least 2 rows "
            "and 1 repeat."
        )
    if values.plot:
        check_can_draw(Path(values.plot))
    workdir, recorded, folder = recorded_runs.published(values)
    data = recorded_runs.load_data(workdir, recorded, values)
    # From here on it takes TensorFlow.
    from kerastrain.export.importance import permutation_importance
    from kerastrain.export.manifest import read_manifest, task_from_json

    task = task_from_json(read_manifest(folder).get("task"))
    found = permutation_importance(
        folder,
        data,
        task=task,
        metric_name=values.metric,
        rows=values.rows,
        repeats=values.repeats,
    )
    content = strict_json(found.to_json())
    if values.json:
        print(json.dumps(content))
    else:
        print("\n".join([str(folder), *lines(content)]))
    if values.plot:
        draw_importance(found, Path(values.plot))
    model = str(folder.relative_to(workdir.path))
    write_report(values, lambda: write_importance(workdir, found, model=model))
    return 0


def lines(found: Mapping[str, Any]) -> list[str]:
    """What is printed of an importance's JSON: a table with bars, and remarks."""
    width = min(shutil.get_terminal_size().columns, 100)
    table = aligned(importance_rows(found)[: MAX_LINES + 1])
    room = max(width - max(map(len, table)) - 2, 10)
    largest = max(abs(column["mean"]) for column in found["columns"]) or 1.0
    bars = ["", *(_bar(column["mean"] / largest, room) for column in found["columns"])]
    longest = max(map(len, table))
    shown = [f"{line:<{longest}}  {bar}".rstrip() for line, bar in zip(table, bars, strict=False)]
    left = len(found["columns"]) - MAX_LINES
    more = [f"… and {left} more, none of them more important."] if left > 0 else []
    told = textwrap.wrap(importance_note(found), width)
    remark = textwrap.wrap(alike_note(found), width)
    return [*told, "", *shown, *more, *(["", *remark] if remark else [])]


def _bar(share: float, room: int) -> str:
    """`share` of `room` characters, in eighths; nothing for a column that only disturbs."""
    eighths = round(max(share, 0.0) * room * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
