"""MetricsLog: the run's numbers in one file, an object of JSON a line.

    callbacks = [MetricsLog(workdir.metrics_file)]
    records = [json.loads(line) for line in open("runs/mnist/metrics.jsonl")]
    losses = [r["val_loss"] for r in records if r["kind"] == "evaluation"]

Lines are strict JSON: a number that is NaN or infinite is written as null. The
log follows from the state of the run: on resume it is cut back to the step of
the checkpoint, so that nothing is missing and nothing comes twice.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from kerastrain.callbacks.append_only import AppendOnlyFile
from kerastrain.callbacks.status_callback import StatusCallback, metric_values
from kerastrain.training.status import RunStatus
from kerastrain.workdir import strict_json, write_bytes

logger = logging.getLogger(__name__)

Kind = Literal["train", "evaluation"]


class MetricsLog(StatusCallback):
    """Appends a line for every log point ("train") and every round's end ("evaluation").

    Fields: kind, step, epoch (fractional), seconds, the metrics, learning_rate,
    and examples_per_second of the training steps alone (not known, and left out,
    under `model.fit`). These win over a metric of the same name. An "evaluation"
    holds the round's training metrics and the val_ metrics.
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self.path = Path(path)
        self._file: AppendOnlyFile | None = None
        self._kept_at_start: set[tuple[Kind, int]] = set()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()
        kept = cut_back(self.path, self.status.step)
        self._kept_at_start = {
            (record["kind"], record["step"])
            for record in kept
            if record["step"] == self.status.step
        }
        self._file = AppendOnlyFile(self.path)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self.in_fit and self.status.is_log_point:
            self._append("train", logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._append("evaluation", logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()

    def prepare_save(self) -> Callable[[], None]:
        """What puts every line so far on the disk; the loop has it called at each save."""
        return self.commit

    def commit(self) -> None:
        """Waits until every line so far is on the disk.

        Raises:
            OSError: there is no room for them; they are kept and written later.
        """
        if self._file is not None:
            self._file.commit()

    def close(self) -> None:
        """Flushes and closes the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, kind: Kind, logs: Mapping[str, Any] | None) -> None:
        assert self._file is not None, "on_train_begin comes first"
        status = self.status
        # A run killed after an evaluation but before its checkpoint evaluates again.
        if (kind, status.step) in self._kept_at_start:
            return
        line = json.dumps(_record(kind, status, logs), allow_nan=False) + "\n"
        self._file.append(line.encode())


def _record(kind: Kind, status: RunStatus, logs: Mapping[str, Any] | None) -> dict[str, Any]:
    before = {
        "kind": kind,
        "step": status.step,
        "epoch": status.epoch,
        "seconds": round(status.seconds, 3),
    }
    after = {"learning_rate": status.learning_rate}
    if status.examples_per_second:
        after["examples_per_second"] = round(status.examples_per_second, 1)
    metrics = {n: v for n, v in metric_values(logs).items() if n not in before | after}
    return strict_json(before | metrics | after)


def cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops every line later than `step`, and half-written ones, and returns the rest.

    The file is replaced in one step, and left alone when nothing is to be dropped.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    kept = {line: record for line in lines if (record := _read(line)) and record["step"] <= step}
    remaining = b"".join(kept)
    if remaining != content:
        logger.debug("%s: kept %d of %d lines, to step %d", path, len(kept), len(lines), step)
        write_bytes(path, remaining)
    return list(kept.values())


def _read(line: bytes) -> dict[str, Any] | None:
    """The record of a whole line, or None when the line is cut or is not a record."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if is_record and "kind" in record else None
