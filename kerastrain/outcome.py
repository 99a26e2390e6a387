"""How a run ended, in words and numbers: pure functions of what the loop left.

stopped = explanation(ended, early_stopping=early_stopping, options=options)
best = best_of(ended, stopped, early_stopping=early_stopping, history=history)
report = stop_report(ended, stopped, best, early_stopping=early_stopping, weights=…)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kerastrain.callbacks.early_stopping import EarlyStopping
from kerastrain.errors import TrainingError
from kerastrain.options import TrainOptions
from kerastrain.training.loop import Ended
from kerastrain.training.stopping import Verdict, record_of
from kerastrain.workdir import strict_json

Record = Mapping[str, Any]


def explanation(ended: Ended, *, early_stopping: EarlyStopping, options: TrainOptions) -> str:
    """Why the run ended, a sentence."""
    if ended.reason == "nonfinite":
        bad = f"The {ended.what} was not a finite number at step {ended.step}"
        return f"{bad}; training stopped there."
    verdict = verdict_of(early_stopping)
    if verdict is not None and verdict.stops:
        names = " and ".join(reading.criterion for reading in verdict.because)
        return f"Stopped at step {ended.step} by {names}: {verdict.says}."
    if ended.reason == "stopped":
        return f"Stopped at step {ended.step} by a callback."
    if ended.reason == "time":
        return f"Ended at step {ended.step}: max_seconds={options.max_seconds:g} nearly used up."
    if options.more_epochs is not None:
        return f"Ended at step {ended.step}: more_epochs={options.more_epochs} reached."
    if ended.step == options.max_steps:
        return f"Ended at step {ended.step}: max_steps={options.max_steps} reached."
    return f"Ended at step {ended.step}: max_epochs={options.max_epochs} reached."


def best_of(
    ended: Ended, stopped: str, *, early_stopping: EarlyStopping, history: Sequence[Record]
) -> dict[str, Any]:
    """{"name", "value", "step"} of the best weights.

    Raises:
        TrainingError: there are none, so there is nothing to publish.
    """
    if early_stopping.best is not None:
        return {
            "name": early_stopping.monitor,
            "value": early_stopping.best,
            "step": early_stopping.best_step,
        }
    if not history and ended.reason != "nonfinite":
        raise TrainingError(
            f"{stopped} There was no evaluation yet, so there is nothing to publish. "
            "Give the run more time; the same command goes on."
        )
    if ended.reason == "nonfinite":
        raise TrainingError(
            f"{stopped} No evaluation with a finite result came before it, so there is nothing to "
            "publish. Try a lower --learning_rate; look for extreme values in the data."
        )
    if any(math.isfinite(record.get(early_stopping.monitor, math.nan)) for record in history):
        raise TrainingError(
            f"{stopped} No evaluation counted yet (start_from_epoch="
            f"{early_stopping.start_from_epoch}), so there is nothing to publish."
        )
    raise TrainingError(
        f"{stopped} The objective '{early_stopping.monitor}' was never a finite number, so there "
        "are no best weights to publish. Try a lower --learning_rate."
    )


def verdict_of(early_stopping: EarlyStopping) -> Verdict | None:
    """The verdict that ended the run; None when something else did."""
    progress = early_stopping.progress
    return progress.verdict if progress is not None and progress.stopped else None


def stop_report(
    ended: Ended, stopped: str, best: Record, *, early_stopping: EarlyStopping, weights: str
) -> dict[str, Any]:
    """Why the run ended, on what numbers, and what was kept; for `stopped.json`.

    Args:
        best: as `best_of` gives it.
        weights: where the best weights lie.
    """
    verdict, progress = verdict_of(early_stopping), early_stopping.progress
    latest = None if progress is None else progress.latest
    readings = () if progress is None or progress.verdict is None else progress.verdict.readings
    return {
        "ended": ended.reason,
        "says": stopped,
        "step": ended.step,
        "rule": str(early_stopping.rule),
        "criteria": [] if verdict is None else [each.criterion for each in verdict.because],
        "readings": strict_json([asdict(each) for each in readings]),
        "last_evaluation": None if latest is None else record_of(latest),
        "best": dict(best),
        "restored": {"step": best["step"], "weights": weights},
    }
