"""What `kerastrain versions` prints: the list, and the comparison of two versions.

print("\n".join(list_lines(base, versions)))
print("\n".join(comparison_lines(base, a, b, comparison.to_json())))
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.export.publish_condition import HIGHER
from kerastrain.report import metric_label, number
from kerastrain.text_table import aligned
from kerastrain.training.checkpoint_files import size_text

if TYPE_CHECKING:
    from kerastrain.export.version_list import Version

MAX_CELLS = 10
MAX_INPUTS = 4
LISTED_METRICS = 2


def list_lines(base: Path, versions: Sequence[Version]) -> list[str]:
    """A line for each version; the state comes last because a reason may be long."""
    from kerastrain.export.version_list import rollback_target

    metrics = _listed_metrics(versions)
    headings = ("version", "created", "step", *metrics, "size", "notes", "state")
    rows = [headings, *(_row(version, metrics) for version in versions)]
    left = (1, len(headings) - 2, len(headings) - 1)
    target = rollback_target(versions)
    back = (
        "nothing that was deployed before is here"
        if target is None
        else f"--rollback deploys {target[0]} again"
    )
    lines = [str(base), *aligned(rows, left=left), "", f"deployed: {versions[-1].number}; {back}"]
    if metrics and len(versions) > 1:
        lines.append(
            f"{' and '.join(metrics)}: as each version was published, of its own test rows; "
            f"--compare={versions[-2].number},{versions[-1].number} measures both on the same"
        )
    return lines


def _listed_metrics(versions: Sequence[Version]) -> list[str]:
    """The first of the newest version that was measured."""
    measured = [version.metrics for version in versions if version.metrics]
    return list(measured[-1])[:LISTED_METRICS] if measured else []


def _row(version: Version, metrics: Sequence[str]) -> tuple[str, ...]:
    notes = ["deployed"] if version.is_deployed else []
    if version.copy_of is not None:
        notes.append(f"copy of {version.copy_of} ({version.reason})")
    step = version.content.get("step")
    return (
        str(version.number),
        str(version.content.get("created") or "–"),
        "–" if step is None else f"{step:,}",
        *(number(version.metrics[n]) if n in version.metrics else "–" for n in metrics),
        size_text(version.bytes),
        ", ".join(notes),
        "intact" if version.damage is None else f"damaged: {version.damage}",
    )


def removed_lines(removed: Sequence[int]) -> list[str]:
    return [f"removed: {', '.join(map(str, removed))}"] if removed else []


def comparison_lines(base: Path, a: Version, b: Version, found: Mapping[str, Any]) -> list[str]:
    """What is printed of a `Comparison`'s JSON."""
    names = {"a": f"version {a.number}", "b": f"version {b.number}"}
    lines = [f"{base}: {names['a']} (a) and {names['b']} (b) on {found['rows']:,} test rows"]
    width = min(shutil.get_terminal_size().columns, 100)
    for letter in found["foreign"]:
        remark = (
            f"Attention: {names[letter]} was trained on other data, or another split of them. If "
            "these test rows were among its training rows, it looks better here than it is."
        )
        lines += textwrap.wrap(remark, width)
    lines += ["", *aligned(_metric_rows(found))]
    differences = found["differences"]
    told = _labels_told if "only_a_right" in differences else _numbers_told
    lines += ["", *told(differences, found["rows"])]
    if found["most"]:
        lines += [
            "",
            "where they differ most",
            *aligned(_most_rows(found["most"]), left=(1, 2, 3, 4)),
        ]
    return lines


def _metric_rows(found: Mapping[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("metric", "a", "b", "b - a", f"{100 * found['confidence']:.4g} % interval", "better")
    ]
    for name, pair in found["metrics"].items():
        low, high = pair["low"], pair["high"]
        like = max(abs(pair["a"]), abs(pair["b"]))
        interval = "–"
        if low is not None:
            apart = max(abs(low), abs(high))
            interval = f"{_signed(low, apart)} to {_signed(high, apart)}"
        rows.append(
            (
                metric_label(name, found),
                number(pair["a"], like=like),
                number(pair["b"], like=like),
                _signed(pair["difference"], like),
                interval,
                _better(name, low, high),
            )
        )
    return rows


def _signed(value: float, like: float) -> str:
    text = number(value, like=like)
    return text if text.startswith("-") else f"+{text}"


def _better(name: str, low: float | None, high: float | None) -> str:
    """Which is, if the interval says so; of some, coverage_0.9 for one, nobody can say."""
    if low is None or high is None or low <= 0 <= high or name.startswith("coverage"):
        return ""
    return "b" if (low > 0) == (name in HIGHER) else "a"


def _labels_told(found: Mapping[str, Any], rows: int) -> list[str]:
    lines = [
        f"labels: different in {found['rows']:,} of {rows:,} rows ({found['rows'] / rows:.1%})",
        f"        both right {found['both_right']:,}, only a {found['only_a_right']:,}, only b "
        f"{found['only_b_right']:,}, both wrong {found['both_wrong']:,}",
    ]
    if found["counts"] and found["rows"]:
        headings = ("a \\ b", *found["classes"])
        counts = [
            (name, *(f"{count:,}" for count in line))
            for name, line in zip(found["classes"], found["counts"], strict=True)
        ]
        table = aligned([headings, *counts])
        if max(map(len, table)) <= shutil.get_terminal_size().columns:
            lines += ["", "labels of a (lines) and b (columns)", *table]
    if cells := found["cells"]:
        shown = [(c["true"], c["a"], c["b"], f"{c['rows']:,}") for c in cells[:MAX_CELLS]]
        lines += ["", *aligned([("true", "a says", "b says", "rows"), *shown], left=(0, 1, 2))]
        if len(cells) > MAX_CELLS:
            lines.append(f"… and {len(cells) - MAX_CELLS} more kinds, none of them more frequent")
    return lines


def _numbers_told(found: Mapping[str, Any], rows: int) -> list[str]:
    mean, largest = number(found["mean"]), number(found["largest"])
    return [
        f"predictions: {mean} apart on average, {largest} at most",
        f"             a is nearer to the truth in {found['nearer_a']:,} of {rows:,} rows, b in "
        f"{found['nearer_b']:,}",
    ]


def _most_rows(most: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    """A line for each row, with its number in the data as they were read if that is known."""
    has_inputs = any(each["inputs"] for each in most)
    row = "test row" if most[0]["source_row"] is None else "row of the data"
    headings = (row, "true", "a", "b", *(["inputs"] if has_inputs else []))
    return [
        headings,
        *(
            (
                str(each["row"] if each["source_row"] is None else each["source_row"]),
                _answer(each["true"]),
                _answer(each["a"]),
                _answer(each["b"]),
                *([_inputs(each["inputs"])] if has_inputs else []),
            )
            for each in most
        ),
    ]


def _answer(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['label']} ({value['probability']:.3f})"
    if isinstance(value, list):
        return ", ".join(number(each) for each in value)
    return value if isinstance(value, str) else number(value)


def _inputs(values: Mapping[str, Any] | None) -> str:
    """The first columns, shortened; --json has all of them."""
    shown = [f"{name}={_short(value)}" for name, value in list((values or {}).items())[:MAX_INPUTS]]
    more = ", …" if len(values or {}) > MAX_INPUTS else ""
    return ", ".join(shown) + more


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)
    return text if len(text) <= 20 else text[:19] + "…"
