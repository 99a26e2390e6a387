"""Two versions on the same test rows: how much one is better, and where their answers differ.

    found = compare_versions(version_a, version_b, data)
    found.metrics["accuracy"]          # Pair(a=0.981, b=0.986, low=0.001, high=0.009)
    found.differences.only_b_right     # `kerastrain.export.answer_differences`

The interval is one of the difference, b - a, by the paired bootstrap
(`bootstrap.difference_intervals`): the metrics of both move together from one sample of
rows to another, so their own intervals may overlap while one is clearly better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerastrain.data.source import Data, Task
from kerastrain.export import manifest
from kerastrain.export.answer_differences import OtherLabels, OtherNumbers, differences_between
from kerastrain.export.bootstrap import check_settings, difference_intervals
from kerastrain.export.rows import examples_of, rows_of_split
from kerastrain.export.scoring import score
from kerastrain.export.version_answers import answers_to, common_task
from kerastrain.export.version_list import Version


@dataclass(frozen=True)
class Pair:
    """A metric of both versions, and between what b - a lies; None without an interval."""

    a: float
    b: float
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        rows: of the test split.
        metrics: those that both have.
        foreign: versions ("a", "b") that were trained on other data or another split of them:
            rows of their training may be among these test rows.
        most: rows whose answers differ most: {"row", "source_row", "true", "a", "b",
            "difference", "inputs"}; row counts from 0 in the test split, source_row in the
            data as they were read. The difference is the share of probability that the two
            give to different classes, or that of the predictions.
        positive: the positive one of two classes.
    """

    rows: int
    metrics: dict[str, Pair]
    resamples: int
    confidence: float
    foreign: tuple[str, ...]
    differences: OtherLabels | OtherNumbers
    most: list[dict[str, Any]]
    positive: str | int | None = None

    def to_json(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        plain["metrics"] = {
            name: {**dataclasses.asdict(pair), "difference": pair.difference}
            for name, pair in self.metrics.items()
        }
        return manifest.plain(plain)


def compare_versions(
    a: Version,
    b: Version,
    data: Data,
    *,
    fingerprint: str | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    shown: int = 10,
) -> Comparison:
    """Asks both versions about every test row.

    Args:
        fingerprint: of the data, if it is known already.
        resamples, confidence: of the intervals, as for `bootstrap.intervals`.
        shown: rows that differ most.

    Raises:
        OptionsError: `resamples` or `confidence` is out of range.
        DataError: there is no test split.
        ExportError: a version is damaged, does not take the rows, or predicts something else.
    """
    check_settings(resamples=resamples, confidence=confidence)
    names = {f"version {v.number}": v for v in (a, b)}
    contents = {name: manifest.read_manifest(v.folder) for name, v in names.items()}
    tasks = {name: manifest.task_from_json(each.get("task")) for name, each in contents.items()}
    task = common_task(tasks)
    if data.task is not None:
        common_task({"the versions": task, "the run": _about(data.task, task)})
    of_a, of_b = (answers_to(v.folder, data, "test", name=name) for name, v in names.items())
    test = examples_of(data, "test")
    scores = [score(task, of, test.targets, weights=test.weights) for of in (of_a, of_b)]
    ends = difference_intervals(
        task, of_a, of_b, test.targets,
        weights=test.weights, resamples=resamples, confidence=confidence,
    )  # fmt: skip
    differences, most = differences_between(task, of_a, of_b, test.targets, shown=shown)
    return Comparison(
        rows=len(test),
        metrics={
            name: Pair(value, scores[1][name], *ends.get(name, ()))
            for name, value in scores[0].items()
            if name in scores[1]
        },
        resamples=resamples,
        confidence=confidence,
        foreign=_foreign(contents.values(), fingerprint or data.fingerprint()),
        differences=differences,
        most=[{**each, **_where(data, each["row"])} for each in most],
        positive=getattr(task, "positive", None),
    )


def _about(task: Task, other: Task) -> Task:
    """The run's task, the other's class the positive one: which it is, the versions say."""
    is_same = getattr(task, "classes", None) == getattr(other, "classes", ())
    return other if is_same else task


def _foreign(contents: Any, fingerprint: str) -> tuple[str, ...]:
    recorded = [(content.get("data") or {}).get("fingerprint") for content in contents]
    return tuple(
        letter
        for letter, own in zip("ab", recorded, strict=True)
        if own is not None and own != fingerprint
    )


def _where(data: Data, row: int) -> dict[str, Any]:
    """The row in the source, and for tables its columns."""
    source = data.split_rows.get("test")
    test = data.test_rows if data.test_rows is not None else examples_of(data, "test").inputs
    inputs = None
    if isinstance(test, Mapping):
        rows = rows_of_split(data, "test", dict.fromkeys(test))
        inputs = {name: v[row] for name, v in rows.items() if v.ndim == 1}
    return {"source_row": None if source is None else int(source[row]), "inputs": inputs}
