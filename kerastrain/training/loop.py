"""The training loop: chunks of steps, evaluations, callbacks, and saving last.

    loop = Loop(state, executor, evaluator, callbacks=[...], plan=plan, saver=saver, ...)
    ended = loop.run(signals)
    ended.reason        # "stopped", "budget", "time", "nonfinite" or "signal"

For callbacks an "epoch" is a round: the time between two evaluations, by default
one pass over the data. `on_train_batch_end` comes once per chunk, as with Keras's
`steps_per_execution`; a callback that listens to batches gets chunks of one step.

A callback with `prepare_save()` has something that a checkpoint refers to (best weights,
log lines): it takes a snapshot and returns what writes it, before the state is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerastrain.objective import Objective
from kerastrain.training.cadence import Cadence
from kerastrain.training.evaluation import Evaluator, as_floats
from kerastrain.training.executor import Executor
from kerastrain.training.plan import Plan
from kerastrain.training.progress import CallbackProgress
from kerastrain.training.saving import Saver, Write
from kerastrain.training.signals import Signals
from kerastrain.training.starts import Starts
from kerastrain.training.state import TrainState
from kerastrain.training.status import RunStatus, Save
from kerastrain.training.stopping import evaluation_of, evaluations_of
from kerastrain.workdir import strict_json

# Signals are obeyed and displays updated between chunks.
CHUNK_SECONDS = 0.5


@dataclass(frozen=True)
class Ended:
    """Why the loop ended.

    Attributes:
        reason: "stopped" (by a callback), "budget" (steps or epochs), "time", "nonfinite"
            or "signal".
        step: the last step; with "nonfinite" the one whose loss was not finite.
        what: with "nonfinite": "loss"; "gradient" where that alone was not, in spite of scaling.
    """

    reason: str
    step: int
    what: str = "loss"


class Loop:
    """One run's loop over one state."""

    def __init__(
        self,
        state: TrainState,
        executor: Executor,
        evaluator: Evaluator | None,
        *,
        callbacks: Sequence[keras.callbacks.Callback],
        plan: Plan,
        jit: bool,
        step_seconds: float | None,
        objective: Objective,
        saver: Saver,
        cadence: Cadence,
        starts: Starts,
        deadline: float = math.inf,
        is_worth_saving: Callable[[float], bool] = lambda value: False,
        saves_evaluations: bool = False,
        go_on_from: int | None = None,
    ):
        """
        Args:
            cadence: when a save is due by the clock, besides the steps that `plan` names.
            deadline: in seconds of `time.monotonic`; the loop ends in time for the rest.
            is_worth_saving: whether a state with this value of the objective is saved
                although no save is due, if that costs little.
            saves_evaluations: every state with a finite objective is saved, whatever it costs.
            go_on_from: the step where the run had ended, to go on beyond it all the same;
                None: an end is an end.
        """
        self.state = state
        self.executor = executor
        self.evaluator = evaluator
        self.plan = plan
        self.jit = jit
        self.objective = objective
        self.status = RunStatus(
            objective,
            last_step=plan.last_step,
            steps_per_epoch=plan.steps_per_epoch,
            max_epochs=plan.epoch_at(plan.last_step),
        )
        self._progress = CallbackProgress(callbacks, saver.folder, state.host)
        self._reported = _Reported()
        self.callbacks = keras.callbacks.CallbackList(
            [*callbacks, self._reported],
            model=state.model,
            epochs=math.ceil(plan.last_step / plan.evaluate_every),
            steps=plan.evaluate_every,
            verbose=1,
            run=self.status,
        )
        self._saver = saver
        self._cadence = cadence
        self._starts = starts
        self._deadline = deadline
        self._out_of_time = False
        self._is_worth_saving = is_worth_saving
        self._saves_evaluations = saves_evaluations
        self._go_on_from = go_on_from
        self._step_seconds = step_seconds
        self._every_batch = any(_listens_to_batches(callback) for callback in callbacks)
        self._meter = _Meter(executor.batches.examples / plan.steps_per_epoch)
        # Until one was measured: an example takes no longer than in training.
        rounds = 0 if evaluator is None else evaluator.examples / executor.batches.batch_size
        self._evaluation_seconds = math.ceil(rounds) * (step_seconds or 0.0)
        self._saved: tuple[int, int] | None = None

    def run(self, signals: Signals) -> Ended:
        """Trains until something ends the run; everything is saved when it returns."""
        self._begin()
        ended = self._settle(signals)
        while ended is None:
            first_bad = self._run_chunk()
            if first_bad is not None:
                # The state is not saved: the newest checkpoint is from before.
                self._saver.write_only(self._prepare_callbacks)
                return Ended("nonfinite", first_bad, self._what_is_bad())
            ended = self._settle(signals)
        self._saver.finish()
        return ended

    def end(self) -> None:
        """Tells the callbacks, which restore the best weights and close their files."""
        self.callbacks.on_train_end()

    def save(self) -> None:
        """Takes a snapshot of everything and has it written, unless it is what was saved last.

        Nor if only an evaluation is new and there is no earlier checkpoint: to replace one is to
        be without it for a moment, and the next start makes the same evaluation again.
        """
        step = self.state.step
        if self._saved == self._position():
            return
        if self._is_saved_unevaluated() and not self._saver.has_earlier(step):
            return
        self._starts.beat("saving", step=self.state.step)
        began = time.perf_counter()
        self.state.host["stop_training"] = bool(self.state.model.stop_training)
        self.state.host["seconds"] = self.status.seconds
        self._saver.save(self.state.step, facts=self._facts(), prepare=self._prepare)
        blocking = time.perf_counter() - began
        self.status.saves.append(Save(self.state.step, blocking))
        self._cadence.saved(
            blocking_seconds=blocking,
            writing_seconds=self._saver.writing_seconds,
            now=time.monotonic(),
        )
        self._saved = self._position()

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint's record says, so that nobody need read its variables for it."""
        history = self.state.host.get("history", [])
        is_evaluated = bool(history) and history[-1]["step"] == self.state.step
        # With loss scaling a round may lie in a stretch of steps that went wrong.
        is_evaluated = is_evaluated and math.isfinite(history[-1].get("loss", 0.0))
        objective = history[-1].get(self.objective.name) if is_evaluated else None
        return {
            "epoch": self.plan.epoch_at(self.state.step),
            "seconds": self.status.seconds,
            "objective": strict_json(objective),
            "rollbacks": self.state.host.get("rollbacks", 0),
        }

    def _position(self) -> tuple[int, int]:
        """Differs before and after an evaluation at the same step."""
        return self.state.step, len(self.state.host.get("history", []))

    def _is_saved_unevaluated(self) -> bool:
        """Whether only an evaluation is new, of a state that a signal had saved without it."""
        return self._saved is not None and self._saved[0] == self.state.step

    def _prepare(self) -> list[Write]:
        return [self._progress.take(), *self._prepare_callbacks()]

    def _prepare_callbacks(self) -> list[Write]:
        """Snapshots of what a checkpoint refers to: best weights, logs up to this step."""
        return [
            callback.prepare_save()
            for callback in self.callbacks.callbacks
            if hasattr(callback, "prepare_save")
        ]

    def _begin(self) -> None:
        state = self.state
        self.status.seconds = state.host.get("seconds", 0.0)
        self._update_status()
        self.status.evaluations = evaluations_of(self._timed_history())
        goes_on = "callbacks" in state.host
        restored = state.snapshot() if goes_on else []
        self.callbacks.on_train_begin()
        if goes_on:
            # What it sets at the beginning (a learning rate, a backup's weights) was set then.
            state.assign(restored)
        state.model.stop_training = state.host.get("stop_training", False)
        # Keras's callbacks forget everything at the beginning; here they go on where they were.
        self._progress.begun()
        for record in state.host.get("history", []):
            self._note_best(record.get(self.objective.name), record["step"])
        if not goes_on:
            self.save()  # The first start: from here on there is always a state to go back to.
        self._saved = self._position()
        if self._go_on_from is not None and state.host.get("went_on_from") != self._go_on_from:
            self._go_on_beyond_the_end(self._go_on_from)

    def _go_on_beyond_the_end(self, step: int) -> None:
        """Once: checkpoints from here on say that it has been done."""
        self.state.host["went_on_from"] = step
        self.state.model.stop_training = False
        for callback in self.callbacks.callbacks:
            if hasattr(callback, "go_on"):
                callback.go_on()

    def _settle(self, signals: Signals) -> Ended | None:
        """Between two chunks: what is owed to this step, the decision to end, and saving, last."""
        self._saver.raise_error()
        self._out_of_time = self._out_of_time or self._time_is_up()
        if self._owes_evaluation():
            self._end_round(signals)
        self.state.check_unchanged()
        ended = self._ended(signals)
        if ended or self._save_is_due():
            self.save()
        # Checkpoints at a round's end are from before the next one has begun.
        if ended is None and self.state.step % self.plan.evaluate_every == 0:
            self.callbacks.on_epoch_begin(self.plan.round_of(self.state.step))
        return ended

    def _owes_evaluation(self) -> bool:
        """At a round's end, and, as in fit, where a callback stopped in the middle of one.

        Not if it was made already: by this start, or by the one that saved the state.
        """
        step, history = self.state.step, self.state.host.get("history", [])
        if step == 0 or (history and history[-1]["step"] == step):
            return False
        is_over = self.plan.ends_round(step) or self.state.model.stop_training
        return is_over or self._out_of_time

    def _time_is_up(self) -> bool:
        """Whether what must still come after another chunk could end after the deadline."""
        # An evaluation, and the export's own of the test split, which may be twice as slow.
        needed = max(CHUNK_SECONDS, self._step_seconds or 0.0) + 3 * self._evaluation_seconds
        needed += self._saver.writing_seconds or 0.0
        return time.monotonic() + needed >= self._deadline

    def _run_chunk(self) -> int | None:
        step = self.state.step
        self.state.check_unchanged()
        self._starts.beat("training", step=step)
        count = min(self.plan.next_stop(step) - step, self._chunk_limit())
        first = step % self.plan.evaluate_every
        self.callbacks.on_train_batch_begin(first)
        began = time.perf_counter()
        first_bad = self.executor.run(step, count, jit=self.jit)
        spent = time.perf_counter() - began
        self._step_seconds = spent / count
        self.state.step += count
        self._meter.add(count, spent)
        self.status.seconds += spent
        self._update_status()
        in_round = not self.plan.ends_round(self.state.step)
        self.status.is_log_point = in_round and self.plan.is_log_point(self.state.step)
        wanted = self.status.is_log_point or self._every_batch
        logs = self._training_metrics() if wanted else {}
        self.callbacks.on_train_batch_end(first + count - 1, logs)
        if self.status.is_log_point:
            self._meter.reset()
        return first_bad

    def _what_is_bad(self) -> str:
        """With loss scaling the gradient alone can be; else it is the loss that is looked at."""
        scales = isinstance(self.state.optimizer, keras.optimizers.LossScaleOptimizer)
        loss = self._training_metrics().get("loss", math.nan)
        return "gradient" if scales and math.isfinite(loss) else "loss"

    def _chunk_limit(self) -> int:
        if self._every_batch or self._step_seconds is None:
            return 1
        return max(1, int(CHUNK_SECONDS / max(self._step_seconds, 1e-9)))

    def _end_round(self, signals: Signals) -> None:
        """Evaluates and tells the callbacks. A signal breaks it off, and nothing has happened."""
        state = self.state
        self._starts.beat("evaluating", step=state.step)
        began = time.perf_counter()
        running = state.running_metrics()
        logs = self._training_metrics()
        state.average_replicas()
        state.model.reset_metrics()
        # Averaged weights, where the optimizer keeps them, are what is measured and kept.
        with state.averaged_weights():
            measured = self._validation_metrics(signals)
            if measured is not None:
                logs.update(measured)
                self.status.is_log_point = True
                self._note_best(logs.get(self.objective.name), state.step)
                self.callbacks.on_epoch_end(self._finished_round(), logs)
                # With what callbacks measure: the run's end must leave room for that, too.
                self._evaluation_seconds = time.perf_counter() - began
        if measured is None:
            state.assign_running_metrics(running)
            return
        logs = self._reported.logs  # With what callbacks have added, as in fit's history.
        values = {n: v for n, v in as_floats(logs).items() if n not in ("step", "epoch", "seconds")}
        record = {"step": state.step, "epoch": self.plan.epoch_at(state.step), **values}
        state.host.setdefault("history", []).append(record)
        # Apart from the history, since the clock differs from start to start.
        seconds = round(self.status.seconds, 3)
        state.host.setdefault("evaluation_seconds", []).append(seconds)
        evaluations = self.status.evaluations
        evaluations.append(evaluation_of(len(evaluations), {**record, "seconds": seconds}))
        self._meter.reset()

    def _timed_history(self) -> list[dict[str, Any]]:
        host = self.state.host
        records = zip(host.get("history", []), host.get("evaluation_seconds", []), strict=True)
        return [{**record, "seconds": seconds} for record, seconds in records]

    def _finished_round(self) -> int:
        return math.ceil(self.state.step / self.plan.evaluate_every) - 1

    def _training_metrics(self) -> dict[str, float]:
        return as_floats(self.state.model.get_metrics_result())

    def _validation_metrics(self, signals: Signals) -> dict[str, float] | None:
        if self.evaluator is None:
            return {}
        began = time.perf_counter()
        self.callbacks.on_test_begin()
        metrics = self.evaluator(jit=self.jit, is_broken_off=lambda: signals.received is not None)
        if metrics is None:
            return None
        self.callbacks.on_test_end(metrics)
        self._evaluation_seconds = time.perf_counter() - began
        self.status.seconds += self._evaluation_seconds
        return {f"val_{name}": value for name, value in metrics.items()}

    def _update_status(self) -> None:
        self.status.step = self.state.step
        self.status.epoch = self.plan.epoch_at(self.state.step)
        self.status.learning_rate = self.state.learning_rate
        self.status.examples_per_second = self._meter.examples_per_second

    def _note_best(self, value: float | None, step: int) -> None:
        """For displays; the callbacks decide for themselves."""
        if self.objective.is_better(value, than=self.status.best):
            self.status.best, self.status.best_step = value, step

    def _ended(self, signals: Signals) -> Ended | None:
        step = self.state.step
        if self._owes_evaluation() and signals.received:
            return Ended("signal", step)  # It broke the evaluation off.
        if self.state.model.stop_training:
            return Ended("stopped", step)
        if step >= self.plan.last_step:
            return Ended("budget", step)
        if signals.received:
            return Ended("signal", step)
        if self._out_of_time:
            return Ended("time", step)
        return None

    def _save_is_due(self) -> bool:
        objective, now = self._facts()["objective"], time.monotonic()
        if self._saves_evaluations and objective is not None:
            return True
        if self._is_saved_unevaluated():
            return False
        if self.plan.is_checkpoint(self.state.step) or self._cadence.is_due(now):
            return True
        if objective is None:
            return False
        return self._cadence.is_affordable(now) and self._is_worth_saving(objective)


class _Meter:
    """Examples per second of the training steps alone."""

    def __init__(self, examples_per_step: float):
        self._examples_per_step = examples_per_step
        self.reset()

    def add(self, steps: int, seconds: float) -> None:
        self._steps += steps
        self._seconds += seconds

    def reset(self) -> None:
        self._steps, self._seconds = 0, 0.0

    @property
    def examples_per_second(self) -> float:
        return self._steps * self._examples_per_step / self._seconds if self._seconds else 0.0


class _Reported(keras.callbacks.Callback):
    """Comes last and keeps what an evaluation reported: Keras gives callbacks a copy of it."""

    per_chunk = True

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.logs = logs or {}


def _listens_to_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback of the user's own must hear of every batch."""
    if getattr(callback, "per_chunk", False):
        return False
    base = keras.callbacks.Callback
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    return any(
        getattr(type(callback), hook) is not getattr(base, hook)
        or hook in vars(callback)  # LambdaCallback sets them on the instance.
        for hook in hooks
    )
