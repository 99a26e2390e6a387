"""Evaluations as they are recorded: in `metrics.jsonl`, in checkpoints, in a program's memory.

evaluations = read_evaluations(Path("runs/mnist/metrics.jsonl"))
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kerastrain.errors import WorkdirError
from kerastrain.training.stopping.criterion import Evaluation
from kerastrain.workdir import strict_json

Record = Mapping[str, Any]


def evaluations_of(records: Iterable[Record]) -> list[Evaluation]:
    """Evaluations from records with "step", "epoch", "seconds" and metrics by name.

    None is read as NaN: strict JSON has no other way to say it.
    """
    return [evaluation_of(index, record) for index, record in enumerate(records)]


def evaluation_of(index: int, record: Record) -> Evaluation:
    """One of them; `index` is 0-based among the run's."""
    values = {
        name: math.nan if value is None else float(value)
        for name, value in record.items()
        if name not in ("kind", "step", "epoch", "seconds")
    }
    step, epoch, seconds = record["step"], record["epoch"], record["seconds"]
    return Evaluation(index, step, epoch, seconds, values)


def record_of(evaluation: Evaluation) -> dict[str, Any]:
    """The record that `evaluations_of` reads, as strict JSON."""
    return {
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "seconds": round(evaluation.seconds, 3),
        **strict_json(evaluation.values),
    }


def read_evaluations(path: Path) -> list[Evaluation]:
    """The evaluations in a run's `metrics.jsonl`; a last line that was cut is left out.

    Raises:
        WorkdirError: the file cannot be read, or holds something else.
    """
    try:
        lines = path.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return evaluations_of(record for record in records if record["kind"] == "evaluation")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path} cannot be read as a run's metrics: {error!r}.") from error
