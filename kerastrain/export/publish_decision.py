"""Whether a candidate is good enough to be published: by its and the deployed version's answers.

check(condition, data, task, base=base)                     # before the first step
decision = decide(condition, candidate, base, data, task)   # before the rename
decision.publish, decision.text
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerastrain.data.source import Classification, Data, Task
from kerastrain.errors import ExportError, KerastrainError, OptionsError
from kerastrain.export import manifest
from kerastrain.export.publish_condition import PublishCondition, Term
from kerastrain.export.rows import Split, examples_of
from kerastrain.export.scoring import metric
from kerastrain.export.version_answers import answers_to, common_task

# Enough to see whether a version takes the rows at all.
FIRST_ROWS = 4


@dataclass(frozen=True)
class Judged:
    """A term with its numbers.

    Attributes:
        deployed: the deployed version's value; None when there is none, or it was not asked.
        rows: of the split.
        positive: the class that the metric is about, where it is about one of two.
    """

    term: Term
    candidate: float
    deployed: float | None
    rows: int
    holds: bool
    positive: str | int | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "term": str(self.term)}


@dataclass(frozen=True)
class Decision:
    """Whether to publish, and why.

    Attributes:
        text: for people: a line for every term with both numbers, rows and version.
        deployed: the version that was compared with; None: there is none.
    """

    publish: bool
    text: str
    deployed: int | None
    judged: tuple[Judged, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a run's record."""
        return {
            "publish": self.publish,
            "text": self.text,
            "deployed": self.deployed,
            "terms": [each.to_json() for each in self.judged],
        }


def decide(
    condition: PublishCondition,
    candidate: Path,
    base: Path,
    data: Data,
    task: Task | None,
    *,
    fingerprint: str | None = None,
) -> Decision:
    """Asks the candidate and the deployed version about the same rows, now.

    While nothing is deployed there is nothing to beat; plain numbers are compared all the same.

    Args:
        candidate: a SavedModel's folder, wherever it is.
        base: the folder of versions; the newest is deployed.
        task: of the candidate.
        fingerprint: of the data. Where the deployed version was trained on other data, or
            another split of them, the text says so.

    Raises:
        OptionsError: a metric is not defined for this task and these rows.
        DataError: there is no such split.
        ExportError: the deployed version is damaged, predicts something else, or does not
            take the rows.
    """
    contest = _Contest(candidate, base, data, task)
    judged = tuple(map(contest.judge, condition.terms))
    is_good = all(each.holds for each in judged)
    lines = [_line(each, contest.deployed) for each in judged]
    if any(each.deployed is not None for each in judged):
        lines += contest.remarks(fingerprint)
    if is_good:
        lines.append("published: all that was asked for holds")
    else:
        stays = "" if contest.deployed is None else f"; version {contest.deployed} stays deployed"
        lines.append(f"not published{stays}")
    return Decision(is_good, "\n".join(lines), contest.deployed, judged)


def check(condition: PublishCondition, data: Data, task: Task | None, *, base: Path) -> None:
    """Fails early where `decide` would fail after the training.

    Raises:
        OptionsError, DataError, ExportError: as `decide` does.
    """
    contest = _Contest(None, base, data, task)
    for term in condition.terms:
        examples = examples_of(data, term.split)
        if task is not None:
            value = metric(
                task, term.metric, _any_answers(task, examples.targets), examples.targets
            )
            if not np.isfinite(value):
                raise OptionsError(
                    f"--publish_if asks for {term.name}, which the {term.split} rows do not define."
                )
        if term.is_against_deployed and contest.deployed is not None:
            contest.check_deployed(term.split)


def _any_answers(task: Task, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Answers of the right shape, to see which metrics can be computed."""
    rows = len(targets)
    if isinstance(task, Classification):
        classes = len(task.classes)
        return {"probabilities": np.full((rows, classes), 1 / classes, np.float32)}
    numbers = np.zeros_like(targets, np.float32)
    return {"prediction": numbers, "quantiles": np.zeros((rows, len(task.quantiles)), np.float32)}


class _Contest:
    """The candidate and the deployed version, each asked once about each split."""

    def __init__(self, candidate: Path | None, base: Path, data: Data, task: Task | None):
        self.candidate, self.base, self.data, self.task = candidate, base, data, task
        self.deployed = max(manifest.versions(base), default=None)
        self.answers = functools.cache(self._answers)

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The deployed version's manifest."""
        try:
            return manifest.read_manifest(self.base / str(self.deployed))
        except KerastrainError as error:
            raise ExportError(
                f"The deployed version {self.deployed} cannot be compared with: {error} Go back to "
                "an intact one with 'kerastrain versions --rollback', or publish without "
                "--publish_if."
            ) from error

    @functools.cached_property
    def common_task(self) -> Task:
        deployed = manifest.task_from_json(self.content.get("task"))
        return common_task({"the candidate": self.task, self._name(deployed=True): deployed})

    def judge(self, term: Term) -> Judged:
        examples = examples_of(self.data, term.split)
        is_contested = term.is_against_deployed and self.deployed is not None
        task = self.common_task if is_contested else self.task

        def value(*, deployed: bool) -> float:
            outputs = self.answers(term.split, deployed=deployed)
            return metric(task, term.metric, outputs, examples.targets, weights=examples.weights)

        candidate = value(deployed=False)
        deployed = value(deployed=True) if is_contested else None
        holds = term.holds(candidate, deployed)
        is_about = term.metric == "average_precision"
        positive = getattr(task, "positive", None) if is_about else None
        return Judged(term, candidate, deployed, len(examples), holds, positive)

    def check_deployed(self, split: Split) -> None:
        """Whether it takes the rows and predicts the same."""
        if self.task is not None:
            _ = self.common_task
        folder = self.base / str(self.deployed)
        answers_to(folder, self.data, split, name=self._name(deployed=True), first=FIRST_ROWS)

    def _answers(self, split: Split, *, deployed: bool) -> dict[str, np.ndarray]:
        folder = self.base / str(self.deployed) if deployed else self.candidate
        assert folder is not None
        return answers_to(folder, self.data, split, name=self._name(deployed=deployed))

    def _name(self, *, deployed: bool) -> str:
        return f"the deployed version {self.deployed}" if deployed else "the candidate"

    def remarks(self, fingerprint: str | None) -> list[str]:
        own = (self.content.get("data") or {}).get("fingerprint")
        if None in (own, fingerprint) or own == fingerprint:
            return []
        return [
            f"version {self.deployed} was trained on other data, or another split of them: if "
            "these rows were among its training rows, it looks better here than it is"
        ]


def _line(judged: Judged, version: int | None) -> str:
    term, deployed = judged.term, judged.deployed
    shown = _number(judged.candidate, deployed)
    about = "" if judged.positive is None else f" (positive class: {judged.positive})"
    said = f"{term}{about}: the candidate has {shown}"
    if deployed is not None:
        said += f", version {version} {_number(deployed, judged.candidate)},"
    said += f" on {judged.rows:,} {term.split} rows"
    if term.is_against_deployed and deployed is None:
        said += "; no version is deployed yet"
    return f"{said}: {'holds' if judged.holds else 'does not hold'}"


def _number(value: float, other: float | None) -> str:
    """With six digits, or all where two different numbers would look the same."""
    short = f"{value:.6g}"
    is_unclear = other is not None and other != value and f"{other:.6g}" == short
    return repr(value) if is_unclear else short
