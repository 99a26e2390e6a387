"""ProgressDisplay: how the run is doing, for a person.

    callbacks = [ProgressDisplay()]

On a terminal a bar at the bottom of the screen, with the log above it, and the
last round's result when it ends. Elsewhere (a file, a pipe) plain lines: one at
the end of each round, and some in between when a round takes long.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kerastrain.callbacks.status_callback import StatusCallback, metric_values
from kerastrain.training.status import RunStatus

logger = logging.getLogger(__name__)

# Under `model.fit` a call comes after every batch; people do not read faster than this.
SECONDS_BETWEEN_UPDATES = 0.1


class ProgressDisplay(StatusCallback):
    """Shows progress on the standard output; with the loop's `verbose=0`, nothing.

    Under `model.fit`, whose `verbose=0` turns off Keras's own bar, it always shows.

    Args:
        seconds_between_lines: where there is no terminal, the least time between a
            line and the next one in the middle of a round. Lines of rounds always come.
        console: where to; None: the standard output as it is when training begins.
    """

    def __init__(self, *, seconds_between_lines: float = 5.0, console: Console | None = None):
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._given_console = console
        self._console: Console | None = None
        self._live: Live | None = None
        self._result: str | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()
        if not self.in_fit and self.params.get("verbose") == 0:
            return
        self._metrics: dict[str, float] = {}
        self._time_left = TimeLeft()
        self._result = None
        self._line_at = self._updated_at = time.monotonic()
        self._shown = dataclasses.replace(self.status)
        self._console = self._given_console or Console(file=sys.stdout)
        if self._console.is_interactive:
            self._attempt(self._start_bar)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        is_early = self.in_fit and now - self._updated_at < SECONDS_BETWEEN_UPDATES
        if self._console is None or is_early:
            return
        self._update(logs, now)
        is_due = now - self._line_at >= self.seconds_between_lines
        if self._live is None and is_due and (self.in_fit or self._shown.is_log_point):
            self._write(progress_line(self._shown, metric_values(logs)))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self._console is None:
            return
        self._update(logs, time.monotonic())
        self._shown = with_best_of(self._shown, metric_values(logs))
        self._result = result_lines(self._shown, metric_values(logs))
        if self._live is None:
            self._write(progress_line(self._shown, metric_values(logs)))

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away and leaves the last round's result; a second call does nothing."""
        live, self._live = self._live, None
        if live is not None:
            self._attempt(live.stop)
            if self._result is not None:
                self._write(self._result)
        self._console = None

    def _update(self, logs: Mapping[str, Any] | None, now: float) -> None:
        self._updated_at = now
        # A copy: the bar is drawn by another thread while the loop changes the status.
        self._shown = dataclasses.replace(self.status)
        self._metrics = {**self._metrics, **metric_values(logs)}
        self._time_left.update(self._shown.step, now)

    def _start_bar(self) -> None:
        assert self._console is not None
        self._live = Live(
            get_renderable=self._bar,
            console=self._console,
            transient=True,
            # Warnings that somebody sends to a file stay there.
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )
        self._live.start()
        # A process that is killed cannot show the cursor again.
        self._console.show_cursor(True)

    def _bar(self) -> RenderableType:
        status = self._shown
        bar = bar_line(status, self._time_left.seconds(status.last_step))
        rows = training_items(status, self._metrics), validation_items(status, self._metrics)
        return Group(bar, *(Text("  ").join(_styled(*item) for item in row) for row in rows if row))

    def _write(self, line: str) -> None:
        if self._console is not None:
            file = self._console.file
            self._attempt(lambda: (file.write(line + "\n"), file.flush()))
            self._line_at = time.monotonic()

    def _attempt(self, show: Callable[[], object]) -> None:
        """Training goes on when nobody listens any more (`| head`, a terminal that is gone)."""
        try:
            show()
        except (OSError, ValueError) as error:  # ValueError: a stream that was closed
            self._console = self._live = None
            logger.warning("The progress cannot be shown any more: %s.", error)


class TimeLeft:
    """Seconds to the end of the run, from the pace of the last minute, evaluations included."""

    def __init__(self, window_seconds: float = 60.0):
        self.window_seconds = window_seconds
        self._points: collections.deque[tuple[float, int]] = collections.deque()

    def update(self, step: int, now: float) -> None:
        """Notes that `step` was reached at `now` (seconds of a monotonic clock)."""
        self._points.append((now, step))
        while len(self._points) > 2 and now - self._points[1][0] >= self.window_seconds:
            self._points.popleft()

    def seconds(self, last_step: int) -> float | None:
        """Seconds from the last point to `last_step`; None while the pace is not known."""
        if not self._points:
            return None
        (first_time, first_step), (time_now, step_now) = self._points[0], self._points[-1]
        if step_now <= first_step or last_step < step_now:
            return None
        return (last_step - step_now) * (time_now - first_time) / (step_now - first_step)


def with_best_of(status: RunStatus, metrics: Mapping[str, float]) -> RunStatus:
    """The status after a round with these metrics, in which the best may just have been reached."""
    objective = status.objective
    value = None if objective is None else metrics.get(objective.name)
    if objective is None or not objective.is_better(value, than=status.best):
        return status
    return dataclasses.replace(status, best=value, best_step=status.step)


def progress_line(status: RunStatus, metrics: Mapping[str, float]) -> str:
    """One line for files and pipes; lines of one kind are aligned."""
    items = training_items(status, metrics) + validation_items(status, metrics)
    columns = [f"{name} {value:>7}" for name, value in items]
    return "  ".join([f"epoch {_epochs(status):>8}", f"step {_steps(status)}", *columns])


def result_lines(status: RunStatus, metrics: Mapping[str, float]) -> str:
    """What stays on a terminal: a line for training, and one for validation if there was one."""
    position = [("epoch", _epochs(status)), ("step", _steps(status))]
    rows = position + training_items(status, metrics), validation_items(status, metrics)
    return "\n".join("  ".join(f"{n} {v}" for n, v in row) for row in rows if row)


def bar_line(status: RunStatus, seconds_left: float | None) -> RenderableType:
    """epoch 3/20 ━━━━━━━━━━ step 1,407/9,380  0:12 left"""
    bar = ProgressBar(total=status.last_step or None, completed=status.step)
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, style="progress.remaining")
    epoch, step = _styled("epoch", _epochs(status)), _styled("step", _steps(status))
    line.add_row(epoch, bar, step, f"{_duration(seconds_left)} left")
    return line


def training_items(status: RunStatus, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(name, text) of the speed and the training metrics, the loss first."""
    speed = [("examples/s", f"{status.examples_per_second:,.0f}")]
    return _metric_items(metrics, prefix="") + (speed if status.examples_per_second else [])


def validation_items(status: RunStatus, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(name, text) of the validation metrics, and of the objective's best with its age."""
    items = _metric_items(metrics, prefix="val_")
    if status.objective is not None and status.best is not None:
        items.append((f"best {status.objective.name}", f"{_number(status.best)} ({_age(status)})"))
    return items


def _metric_items(metrics: Mapping[str, float], *, prefix: str) -> list[tuple[str, str]]:
    # Keras passes logs in the order of the alphabet.
    names = sorted(metrics, key=lambda name: name.removeprefix("val_") != "loss")
    return [
        (name, _number(metrics[name]))
        for name in names
        if name.startswith("val_") == bool(prefix) and name != "learning_rate"
    ]


def _styled(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), value)


def _epochs(status: RunStatus) -> str:
    done = f"{status.epoch:.2f}".rstrip("0").rstrip(".")
    return f"{done}/{status.max_epochs:g}" if status.max_epochs else done


def _steps(status: RunStatus) -> str:
    if not status.last_step:
        return f"{status.step:,}"
    last = f"{status.last_step:,}"
    return f"{status.step:,}".rjust(len(last)) + f"/{last}"


def _age(status: RunStatus) -> str:
    """How long ago the best value was reached: "now", "1 epoch ago", "2.5 epochs ago"."""
    steps = status.step - (status.best_step or 0)
    epochs = f"{steps / max(status.steps_per_epoch, 1):.1f}".removesuffix(".0")
    if steps <= 0 or epochs == "0":
        return "now"
    return f"{epochs} epoch{'' if epochs == '1' else 's'} ago"


def _number(value: float) -> str:
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1000:
        return f"{value:.4f}"
    return f"{value:,.1f}" if 1000 <= size < 1e6 else f"{value:.3e}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
