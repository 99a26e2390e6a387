"""The report of a run: RUN/report/ with JSON files, pictures, and a page that shows them.

    page = write_evaluation(workdir, evaluation, model="export/tabular/1")
    page = write_importance(workdir, importance, model="export/tabular/1")    # …/report/index.html

The page is one file that needs nothing else: pictures are inside it, and no script
runs. It is made again, from the JSON files and pictures in the folder, whenever one of
them is written. Pictures need matplotlib; without it the page has its tables only.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain import plots
from kerastrain.errors import WorkdirError
from kerastrain.workdir import Workdir, read_json, strict_json, write_bytes, write_json

if TYPE_CHECKING:
    from kerastrain.export.evaluation import Evaluation
    from kerastrain.export.importance import Importance

PAGE = "index.html"
EVALUATION, IMPORTANCE = "evaluation.json", "importance.json"
# In the order of the page, with what a reader who sees no pictures is told.
PICTURES = {
    "confusion.png": "The confusion matrix",
    "calibration.png": "A reliability diagram",
    "predictions.png": "Predicted against true values, and the errors",
}
IMPORTANCE_PICTURE = "importance.png"
MAX_CLASSES = 20
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p { color: #555; margin: .3rem 0 1rem; overflow-wrap: anywhere; }
div { overflow-x: auto; } img { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 1rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } th { color: #555; font-weight: 600; }
"""

Draw = Callable[[plots.Place], None]
Row = Sequence[str]


def write_evaluation(workdir: Workdir, found: Evaluation, *, model: str) -> Path:
    """Writes evaluation.json, its pictures, and the page; returns the page.

    Args:
        model: the version that was measured, for the page.

    Raises:
        WorkdirError: the folder cannot be written to.
    """
    drawn: dict[str, Draw] = {}
    if found.confusion is not None:
        drawn["confusion.png"] = partial(plots.draw_confusion, found.confusion)
    if found.calibration is not None:
        drawn["calibration.png"] = partial(plots.draw_calibration, found.calibration)
    if found.numbers is not None:
        drawn["predictions.png"] = partial(plots.draw_numbers, found.numbers)
    content = {"model": model, **found.to_json()}
    return _write(workdir, EVALUATION, content, {name: drawn.get(name) for name in PICTURES})


def write_importance(workdir: Workdir, found: Importance, *, model: str) -> Path:
    """Writes importance.json, its picture, and the page; the arguments are as above."""
    draw = partial(plots.draw_importance, found)
    content = {"model": model, **found.to_json()}
    return _write(workdir, IMPORTANCE, content, {IMPORTANCE_PICTURE: draw})


def _write(
    workdir: Workdir, name: str, content: Mapping[str, Any], pictures: Mapping[str, Draw | None]
) -> Path:
    folder = workdir.report
    try:
        folder.mkdir(exist_ok=True)
        for picture in pictures:  # One of an earlier model must not stay beside new numbers.
            (folder / picture).unlink(missing_ok=True)
    except OSError as error:
        raise WorkdirError(f"{folder} cannot be written to: {error.strerror}.") from error
    write_json(folder / name, strict_json(content))
    for picture, draw in pictures.items():
        if draw is not None and plots.has_matplotlib():
            drawn = io.BytesIO()
            draw(drawn)
            write_bytes(folder / picture, drawn.getvalue())
    write_bytes(folder / PAGE, page(folder, title=workdir.path.absolute().name).encode())
    return folder / PAGE


def page(folder: Path, *, title: str) -> str:
    """The HTML page of whatever a report's folder holds."""
    parts: list[str] = []
    if (folder / EVALUATION).exists():
        parts += _evaluation_parts(folder, read_json(folder / EVALUATION))
    if (folder / IMPORTANCE).exists():
        parts += _importance_parts(folder, read_json(folder / IMPORTANCE))
    name = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{name}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _evaluation_parts(folder: Path, found: Mapping[str, Any]) -> list[str]:
    rows, model = found["rows"], found["model"]
    parts = ["<h2>Test split</h2>", _paragraph(f"{model} on {rows:,} rows")]
    parts.append(_table(*metric_rows(found)))
    if found["intervals"]:
        parts.append(_paragraph(interval_note(found)))
    if by_class := class_rows(found):
        parts.append(_table(*by_class))
    confusion, calibration = found["confusion"], found["calibration"]
    if confusion and len(confusion["classes"]) <= MAX_CLASSES:
        parts += ["<h2>Confusion (rows: true, columns: predicted)</h2>"]
        parts.append(_table(*confusion_rows(confusion)))
    parts += _picture(folder, "confusion.png")
    if calibration:
        parts.append(f"<h2>Calibration: {html.escape(calibration['event'])}</h2>")
        parts.append(_table(*calibration_rows(calibration)))
        parts += _picture(folder, "calibration.png")
    if (folder / "predictions.png").exists():
        parts += ["<h2>Predictions</h2>", *_picture(folder, "predictions.png")]
    return parts


def _importance_parts(folder: Path, found: Mapping[str, Any]) -> list[str]:
    told = f"{found['model']}: {importance_note(found)}"
    headings, *rows = importance_rows(found)
    return [
        "<h2>Permutation importance</h2>",
        _paragraph(told),
        *_picture(folder, IMPORTANCE_PICTURE),
        _table(headings, *rows),
        _paragraph(alike_note(found)),
    ]


def metric_rows(found: Mapping[str, Any]) -> list[Row]:
    """Headings and a line for each metric of an evaluation.json, with its interval if any."""
    metrics, intervals = found["metrics"], found["intervals"]
    if not intervals:
        rows = ((metric_label(n, found), number(v)) for n, v in metrics.items())
        return [("metric", "value"), *rows]
    told = {
        name: " to ".join(number(end, like=metrics[name]) for end in ends)
        for name, ends in intervals.items()
        if name in metrics
    }
    return [
        ("metric", "value", f"{100 * found['confidence']:.4g} % interval"),
        *(
            (metric_label(name, found), number(value), told.get(name, "–"))
            for name, value in metrics.items()
        ),
    ]


def metric_label(name: str, found: Mapping[str, Any]) -> str:
    """A metric's name, with the class that it is about."""
    positive = found.get("positive") if name == "average_precision" else None
    return name if positive is None else f"{name} of '{positive}'"


def class_rows(found: Mapping[str, Any]) -> list[Row]:
    """Headings and a line for each of more than two classes; nothing for two."""
    by_class: Mapping[str, Mapping[str, float]] = found.get("by_class") or {}
    rows: list[Row] = [(name, *map(number, each.values())) for name, each in by_class.items()]
    return [("class against the rest", *next(iter(by_class.values()))), *rows] if rows else []


def interval_note(found: Mapping[str, Any]) -> str:
    return (
        f"Intervals: percentile bootstrap, {found['resamples']:,} resamples of the test rows. They "
        "say what other test rows might have given for this model, not what another training would."
    )


def confusion_rows(confusion: Mapping[str, Any]) -> list[Row]:
    """Headings and a line for each class: its rows by predicted class, and its recall."""
    rows: list[Row] = [("true", *confusion["classes"], "recall")]
    for place, (name, counts) in enumerate(
        zip(confusion["classes"], confusion["counts"], strict=True)
    ):
        recall = f"{counts[place] / sum(counts):.1%}" if sum(counts) else "–"
        rows.append((name, *(f"{count:,}" for count in counts), recall))
    return rows


def calibration_rows(calibration: Mapping[str, Any]) -> list[Row]:
    """Headings and a line for each bin that has rows."""
    lines = [
        (f"{b['low']:.2f} to {b['high']:.2f}", f"{b['mean']:.3f}", f"{b['share']:.3f}",
         f"{b['rows']:,}")
        for b in calibration["bins"]
    ]  # fmt: skip
    return [("probability", "mean", "share", "rows"), *lines]


def importance_rows(found: Mapping[str, Any]) -> list[Row]:
    """Headings and a line for each column, the most important first."""
    largest = max((abs(column["mean"]) for column in found["columns"]), default=0.0)
    lines = [
        (c["name"], number(c["mean"], like=largest), f"± {number(c['std'], like=largest)}")
        for c in found["columns"]
    ]
    return [("column", f"{found['metric']} worse by", "std"), *lines]


def importance_note(found: Mapping[str, Any]) -> str:
    return (
        f"{metric_label(found['metric'], found)} {number(found['baseline'])} on "
        f"{found['rows']:,} validation rows; how much worse it becomes when a column's values "
        "are shuffled among them (mean and "
        f"standard deviation of {found['repeats']} shuffles)."
    )


def alike_note(found: Mapping[str, Any]) -> str:
    """A remark on the columns that say nearly the same; "" when there are none."""
    if not found["alike"]:
        return ""
    pairs = ", ".join(f"{first} and {second} ({rho:.2f})" for first, second, rho in found["alike"])
    return (
        f"Nearly the same is said by {pairs} (Spearman's coefficient). Where one such column is "
        "shuffled the others still tell, so the importance is shared out between them: each looks "
        "less important than they are together."
    )


def number(value: float, *, like: float | None = None) -> str:
    """With as many decimals as show four digits of `like` (default: of itself): 0.8601, 54,945."""
    size = abs(value if like is None else like)
    power = math.floor(math.log10(size)) if size > 0 else 0
    if not -6 <= power <= 12:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 3 - power)}f}"


def _table(headings: Row, *rows: Row) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return f"<div><table><tr>{head}</tr>\n" + "\n".join(lines) + "</table></div>"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _picture(folder: Path, name: str) -> list[str]:
    """The picture as a part of the page, if there is one."""
    if not (folder / name).exists():
        return []
    content = base64.b64encode((folder / name).read_bytes()).decode()
    told = {**PICTURES, IMPORTANCE_PICTURE: "A bar for each column's importance"}[name]
    return [f'<div><img alt="{told}" src="data:image/png;base64,{content}"></div>']
