"""The training loop: chunks of steps, evaluations, callbacks, and saving last.

    loop = Loop(state, executor, evaluator, callbacks=[...], plan=plan, saver=saver, ...)
    ended = loop.run(signals)
    ended.reason        # "stopped", "budget", "nonfinite" or "signal"

For callbacks an "epoch" is a round: the time between two evaluations, by default
one pass over the data. `on_train_batch_end` comes once per chunk, as with Keras's
`steps_per_execution`; a callback that listens to batches gets chunks of one step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from kerastrain.objective import Objective
from kerastrain.training.evaluation import Evaluator, as_floats
from kerastrain.training.executor import Executor
from kerastrain.training.plan import Plan
from kerastrain.training.progress import callback_progress, restore_progress
from kerastrain.training.signals import Signals
from kerastrain.training.state import TrainState
from kerastrain.training.status import RunStatus

# Signals are obeyed and displays updated between chunks.
CHUNK_SECONDS = 0.5


@dataclass(frozen=True)
class Ended:
    """Why the loop ended.

    Attributes:
        reason: "stopped" (by a callback), "budget", "nonfinite" or "signal".
        step: the last step; with "nonfinite" the one whose loss was not finite.
    """

    reason: str
    step: int


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
        save: Callable[[], None],
        checkpoint_seconds: float | None,
    ):
        """
        Args:
            save: commits everything; called last, after all else has decided.
            checkpoint_seconds: time between saves, None when `plan` says at which steps.
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
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks),
            model=state.model,
            epochs=math.ceil(plan.last_step / plan.evaluate_every),
            steps=plan.evaluate_every,
            verbose=1,
            run=self.status,
        )
        # With loss scaling a step that overflows is skipped by the optimizer, which is no harm.
        self._scales_loss = isinstance(state.optimizer, keras.optimizers.LossScaleOptimizer)
        self._save = save
        self._checkpoint_seconds = checkpoint_seconds
        self._step_seconds = step_seconds
        self._every_batch = any(_listens_to_batches(callback) for callback in callbacks)
        self._meter = _Meter(executor.batches.examples / plan.steps_per_epoch)
        self._last_save = time.monotonic()
        self._saved_step: int | None = None

    def run(self, signals: Signals) -> Ended:
        """Trains until something ends the run; everything is saved when it returns."""
        self._begin()
        ended = self._ended(signals)
        while ended is None:
            first_bad = self._run_chunk()
            if first_bad is not None and not self._scales_loss:
                # The state is not saved: the newest checkpoint is from before.
                self._commit_callbacks()
                return Ended("nonfinite", first_bad)
            ends_round = self.plan.ends_round(self.state.step)
            # A callback may stop in the middle of a round; as in fit, an evaluation follows.
            if ends_round or self.state.model.stop_training:
                self._end_round()
            ended = self._ended(signals)
            if ended or self._checkpoint_is_due():
                self.save()
            if ends_round and ended is None:
                self._begin_round()
        return ended

    def end(self) -> None:
        """Tells the callbacks, which restore the best weights and close their files."""
        self.callbacks.on_train_end()

    def save(self) -> None:
        """Commits the state as it is, unless it is what was committed last."""
        if self._saved_step != self.state.step:
            self._commit_callbacks()
            self.state.host["stop_training"] = bool(self.state.model.stop_training)
            self.state.host["callbacks"] = callback_progress(self.callbacks.callbacks)
            self.state.host["seconds"] = self.status.seconds
            self._save()
            self._saved_step = self.state.step
        self._last_save = time.monotonic()

    def _commit_callbacks(self) -> None:
        """Puts on the disk what a checkpoint refers to: best weights, logs up to this step."""
        for callback in self.callbacks.callbacks:
            if hasattr(callback, "commit"):
                callback.commit()

    def _begin(self) -> None:
        state = self.state
        self.status.seconds = state.host.get("seconds", 0.0)
        self._update_status()
        before = callback_progress(self.callbacks.callbacks)
        self.callbacks.on_train_begin()
        # Keras's callbacks forget everything at the beginning; here they go on where they were.
        restore_progress(self.callbacks.callbacks, state.host.get("callbacks", {}), before=before)
        state.model.stop_training = state.host.get("stop_training", False)
        for record in state.host.get("history", []):
            self._note_best(record.get(self.objective.name), record["step"])
        if "callbacks" not in state.host:
            self.save()  # The first start: from here on there is always a state to go back to.
        self._saved_step = state.step
        # Checkpoints at a round's end are from before the next one has begun.
        is_over = state.model.stop_training or state.step >= self.plan.last_step
        if state.step % self.plan.evaluate_every == 0 and not is_over:
            self._begin_round()

    def _begin_round(self) -> None:
        self.callbacks.on_epoch_begin(self.plan.round_of(self.state.step))

    def _run_chunk(self) -> int | None:
        step = self.state.step
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

    def _chunk_limit(self) -> int:
        if self._every_batch or self._step_seconds is None:
            return 1
        return max(1, int(CHUNK_SECONDS / max(self._step_seconds, 1e-9)))

    def _end_round(self) -> None:
        state = self.state
        logs = self._training_metrics()
        state.average_replicas()
        state.model.reset_metrics()
        # Averaged weights, where the optimizer keeps them, are what is measured and kept.
        with state.averaged_weights():
            logs.update(self._validation_metrics())
            self.status.is_log_point = True
            self._note_best(logs.get(self.objective.name), state.step)
            self.callbacks.on_epoch_end(self._finished_round(), logs)
        record = {"step": state.step, "epoch": self.plan.epoch_at(state.step), **as_floats(logs)}
        state.host.setdefault("history", []).append(record)
        self._meter.reset()

    def _finished_round(self) -> int:
        return math.ceil(self.state.step / self.plan.evaluate_every) - 1

    def _training_metrics(self) -> dict[str, float]:
        return as_floats(self.state.model.get_metrics_result())

    def _validation_metrics(self) -> dict[str, float]:
        if self.evaluator is None:
            return {}
        began = time.perf_counter()
        self.callbacks.on_test_begin()
        metrics = self.evaluator(jit=self.jit)
        self.callbacks.on_test_end(metrics)
        self.status.seconds += time.perf_counter() - began
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
        if self.state.model.stop_training:
            return Ended("stopped", step)
        if step >= self.plan.last_step:
            return Ended("budget", step)
        if signals.received:
            return Ended("signal", step)
        return None

    def _checkpoint_is_due(self) -> bool:
        if self._checkpoint_seconds is None:
            return self.plan.is_checkpoint(self.state.step)
        return time.monotonic() - self._last_save >= self._checkpoint_seconds


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
