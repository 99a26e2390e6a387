"""`kerastrain predict`: the answers of a published model for every row of a table.

    kerastrain predict --model=runs/adult --input=new.csv --output=predictions.parquet
    kerastrain predict --model=exports/adult/3 --input=new/ --output=p.csv --keep=id --drift

The model is a version folder, a folder of versions (the newest is taken), or a run's work
directory. Values that it was never trained on are counted and told at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.cli import table_flags
from kerastrain.errors import ExportError, UsageError
from kerastrain.text_table import aligned

if TYPE_CHECKING:
    from kerastrain.data.tables.drift import DriftCounts
    from kerastrain.prediction import Predicted, PublishedModel

SUMMARY = "Predict every row of a table with a published model; report drift."
FLAGS = flags.FlagValues()
SECONDS_BETWEEN_LINES = 10.0

flags.DEFINE_string(
    "model",
    None,
    "A published version, a folder of versions (the newest is taken), or a run's work directory.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "input", None, "CSV or Parquet: a file, a folder, or a glob in quotes.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "Where the predictions go: NAME.parquet or NAME.csv.", flag_values=FLAGS
)
flags.DEFINE_string(
    "keep",
    "unused",
    "Columns of the input that the output has, too: unused (those that the model does not take, "
    "such as identifiers), all, none, or names separated by commas.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "batch_rows", 8192, "Rows that are read and predicted at once.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "drift", False, "Print how far the rows are from those of the training.", flag_values=FLAGS
)
flags.DEFINE_string(
    "drift_report", None, "Write the same into this file: NAME.json.", flag_values=FLAGS
)
flags.DEFINE_boolean("overwrite", False, "Replace files that are there already.", flag_values=FLAGS)

# How CSV is read is said as it is to train.
_TABLE_FLAGS = flags.FlagValues()
table_flags.define(_TABLE_FLAGS)
for _name in ("separator", "header", "encoding"):
    FLAGS[_name] = _TABLE_FLAGS[_name]


def run(values: flags.FlagValues) -> int:
    """Predicts, says what was done and what was strange, and returns the exit status."""
    for name in ("model", "input", "output"):
        if not values[name].value:
            raise UsageError(f"--{name} is missing: {values[name].help}")
    if values.batch_rows < 1:
        raise UsageError(f"--batch_rows={values.batch_rows}; expected 1 or more.")
    from kerastrain.data.tables.reading import TableFormat
    from kerastrain.prediction import find_model, predict_file

    said = table_flags.table_options(values)
    table_format = TableFormat(said.separator, said.header, said.encoding)
    report = _report_file(values)
    model = find_model(_path(values.model))
    _check_statistics(model, is_needed=values.drift or report is not None)
    with progress_shown() as progress:
        done = predict_file(
            model,
            os.path.expanduser(values.input),
            _path(values.output),
            keep=values.keep,
            batch_rows=values.batch_rows,
            overwrite=values.overwrite,
            table_format=table_format,
            progress=progress,
        )
    print(f"{done.rows:,} rows predicted by {model.folder}: {values.output}")
    print(summary_line(done))
    if done.counts is not None:
        tell_counts(done.counts, shows_drift=values.drift, report=report)
    return 0


def _path(given: str) -> Path:
    return Path(os.path.expanduser(given))


def _report_file(values: flags.FlagValues) -> Path | None:
    from kerastrain.data.tables.writing import check_output

    if values.drift_report is None:
        return None
    path = _path(values.drift_report)
    check_output(path, flag="drift_report", suffixes=(".json",), overwrite=values.overwrite)
    return path


def _check_statistics(model: PublishedModel, *, is_needed: bool) -> None:
    if model.statistics is not None:
        return
    remark = f"{model.folder} has no statistics recorded of the rows that it was trained on"
    if is_needed:
        raise ExportError(
            f"{remark}, so drift cannot be measured. Train and publish the model again, or "
            "predict without --drift and --drift_report."
        )
    print(f"{remark}: unseen categories and numbers out of range are not counted.")


@contextmanager
def progress_shown() -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, else a line every ten seconds; gives what to call with rows done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stdout)
    if not console.is_interactive:
        yield progress_lines()
        return
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows, total: bar.update(task, completed=rows, total=total)


def progress_lines(
    seconds: Callable[[], float] = time.monotonic,
) -> Callable[[int, int | None], None]:
    """Prints a line when ten seconds have passed since the last one."""
    start = line_at = seconds()

    def show(rows: int, total: int | None) -> None:
        nonlocal line_at
        now = seconds()
        if now - line_at >= SECONDS_BETWEEN_LINES:
            line_at = now
            of_all = "" if total is None else f" of {total:,}"
            print(f"{rows:,}{of_all} rows, {rows / (now - start):,.0f} a second", flush=True)

    return show


def summary_line(done: Predicted) -> str:
    """The labels by falling share, or the range of the predictions."""
    if "label" not in done.columns:
        parts = [f"{name} {value:.6g}" for name, value in done.summary.items()]
        return f"prediction: {', '.join(parts)}"
    shares = [f"{name} {value / done.rows:.1%}" for name, value in done.summary.items()]
    more = f", and {len(shares) - 10} more" if len(shares) > 10 else ""
    return f"label: {', '.join(shares[:10])}{more}"


def tell_counts(counts: DriftCounts, *, shows_drift: bool, report: Path | None) -> None:
    """What the model was never trained on; how far the rows are from those of the training."""
    import logging

    from kerastrain.data.tables.drift import drift_report
    from kerastrain.workdir import write_json

    for remark in counts.remarks():
        logging.getLogger(__name__).warning("%s", remark)
    if not shows_drift and report is None:
        return
    found = drift_report(counts)
    if shows_drift:
        print("\n".join(drift_lines(found)))
    if report is not None:
        write_json(report, found)
        print(f"drift report: {report}")


def drift_lines(report: Mapping[str, Any]) -> list[str]:
    """A table of the columns, the greatest population stability index first."""
    header = (
        "column",
        "verdict",
        "PSI",
        "by chance",
        "out of range",
        "unseen",
        "missing",
        "before",
    )
    rows = [
        (
            column["column"],
            column["verdict"],
            f"{column['psi']:.4f}",
            f"< {column['psi_bound_95']:.4f}",
            _share(column["out_of_range"]),
            _share(column["unseen"]),
            _share(column["missing"]),
            _share(column["missing_in_training"]),
        )
        for column in report["columns"]
    ]
    return [
        f"drift of {report['rows']:,} rows against the {report['training_rows']:,} of training",
        *aligned([header, *rows], left=(0, 1)),
        "PSI below 0.1 is stable, from 0.25 on large; by chance alone it is as shown in 95 % of "
        "cases. before: missing in training.",
    ]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
