"""TensorBoardLog: scalars for TensorBoard against the true global step.

    callbacks = [TensorBoardLog("runs/mnist/tensorboard")]
    $ tensorboard --logdir=runs

Two runs appear, "train" and "validation"; a metric has the same tag in both
("loss", not "val_loss"), so both curves lie in one chart. Under "stopping" each criterion
that decides when to stop has its own curve, beside its limit. On resume the event
files are cut back to the step of the checkpoint: one point a step, no overlap.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from kerastrain.callbacks.append_only import AppendOnlyFile
from kerastrain.callbacks.status_callback import StatusCallback, metric_values
from kerastrain.errors import WorkdirError
from kerastrain.workdir import sync

TRAIN, VALIDATION = "train", "validation"
# Of one tag in both, so that a criterion's curve and its limit lie in one chart.
CRITERIA, LIMITS = "stopping", "stopping_limit"
RUNS = (TRAIN, VALIDATION, CRITERIA, LIMITS)
DESCRIPTION_TAG = "run"
SAVE_TAG = "checkpoint_blocking_seconds"

# Sorts before every name that TensorFlow gives (they continue with the time of their making),
# so TensorBoard reads what earlier starts of the run wrote first, whatever the clock did since.
EARLIER = "events.out.tfevents.0000000000.earlier.v2"

Point = tuple[str, int]


class TensorBoardLog(StatusCallback):
    """Writes training metrics, learning rate and speed to FOLDER/train, val_ metrics to
    FOLDER/validation.

    Args:
        folder: above the two runs.
        description: Markdown shown under "Text", written once (at step 0).
    """

    def __init__(self, folder: str | os.PathLike[str], *, description: str | None = None):
        super().__init__()
        self.folder = Path(folder)
        self.description = description
        self._files: dict[str, AppendOnlyFile] = {}
        self._kept: dict[str, set[Point]] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()
        step = self.status.step
        try:
            self._kept = {run: cut_back(self.folder / run, step) for run in RUNS}
        except (OSError, tf.errors.OpError) as error:
            raise WorkdirError(
                f"The event files in {self.folder} cannot be cut back to step {step}: {error}"
            ) from error
        if self.description is not None and (DESCRIPTION_TAG, 0) not in self._kept[TRAIN]:
            self._append(TRAIN, text_pb(DESCRIPTION_TAG, self.description), step=0)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self.in_fit and self.status.is_log_point:
            self._write_point(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._write_point(logs)
        self._write_readings()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()

    def prepare_save(self) -> Callable[[], None]:
        """What puts every point so far on the disk; the loop has it called at each save."""
        return self.commit

    def commit(self) -> None:
        """Waits until every point so far is on the disk.

        Raises:
            OSError: there is no room for them; they are kept and written later.
        """
        for file in list(self._files.values()):
            file.commit()

    def close(self) -> None:
        """Flushes and closes the event files; a second call does nothing."""
        self._write_saves()
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write_point(self, logs: Mapping[str, Any] | None) -> None:
        status = self.status
        metrics = metric_values(logs)
        validation = {
            name.removeprefix("val_"): value
            for name, value in metrics.items()
            if name.startswith("val_")
        }
        train = {name: value for name, value in metrics.items() if not name.startswith("val_")}
        train["learning_rate"] = status.learning_rate
        if status.examples_per_second:
            train["examples_per_second"] = status.examples_per_second
        self._write_saves()
        self._write(TRAIN, train, status.step)
        self._write(VALIDATION, validation, status.step)

    def _write_readings(self) -> None:
        """What the stopping criteria measured, and what they compared it with."""
        step, readings = self.status.step, self.status.readings
        values = {f"stopping/{r.criterion}": r.value for r in readings if r.value is not None}
        limits = {f"stopping/{r.criterion}": r.limit for r in readings if r.limit is not None}
        self._write(CRITERIA, values, step)
        self._write(LIMITS, {tag: limits[tag] for tag in values if tag in limits}, step)

    def _write(self, run: str, values: Mapping[str, float], step: int) -> None:
        # A run killed after an evaluation but before its checkpoint evaluates again.
        new = {tag: v for tag, v in values.items() if (tag, step) not in self._kept[run]}
        for tag, value in new.items():
            self._append(run, scalar_pb(tag, value), step=step)

    def _write_saves(self) -> None:
        """How long the saves since the last point held the training up, each at its own step."""
        if self.in_fit or not self._kept:
            return
        saves, self.status.saves = self.status.saves, []
        for save in saves:
            self._write(TRAIN, {SAVE_TAG: save.blocking_seconds}, save.step)

    def _append(self, run: str, summary: Any, *, step: int) -> None:
        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._file(run).append(_framed(event))

    def _file(self, run: str) -> AppendOnlyFile:
        """The run's file, made at its first point: no run without points appears."""
        if run not in self._files:
            name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}"
            self._files[run] = AppendOnlyFile(self.folder / run / f"{name}.{os.getpid()}.v2")
            first = Event(wall_time=time.time(), file_version="brain.Event:2")
            self._files[run].append(_framed(first))
        return self._files[run]


def _framed(event: Event) -> bytes:
    """An event as a record of an event file, with its length and checksums.

    TensorFlow's own writer loses every later point of a file once the disk was full, and
    reports success.
    """
    stream = io.BytesIO()
    RecordWriter(stream).write(event.SerializeToString())
    return stream.getvalue()


def cut_back(folder: Path, step: int) -> set[Point]:
    """Leaves one event file with the points up to `step`; returns the (tag, step) in it.

    A file cut in the middle of a record is read up to there. The new file takes
    its place before the old ones go, and each point is taken once: a process
    killed in between loses nothing and doubles nothing.
    """
    paths = _event_files(folder)
    kept: set[Point] = set()
    if not paths:
        return kept
    is_first = True  # The first record of a file names the version of the format.
    # Without "tfevents" in its name TensorBoard does not look at it.
    partial = folder / ".earlier.partial"
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for path in paths:
            for record in _records(path):
                points = _points(record)
                is_new = points and max(s for _, s in points) <= step and not points <= kept
                if is_first or is_new:
                    writer.write(record)
                    kept |= points
                    is_first = False
    sync(partial)
    os.replace(partial, folder / EARLIER)
    for path in paths:
        if path.name != EARLIER:
            path.unlink()
    sync(folder)
    return kept


def _event_files(folder: Path) -> list[Path]:
    """The event files of a run, in the order in which TensorBoard reads them."""
    return sorted(folder.glob("events.out.tfevents.*"))


def _records(path: Path) -> Iterator[bytes]:
    """Serialized tf.Event messages, to the first one that is cut or damaged."""
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    while True:
        try:
            yield next(records)
        except (StopIteration, tf.errors.DataLossError):
            return


def _points(record: bytes) -> set[Point]:
    """(tag, step) of a record; none in one that only names the version of the format."""
    event = tf.compat.v1.Event.FromString(record)
    return {(value.tag, event.step) for value in event.summary.value}
