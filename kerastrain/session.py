"""One run put together: data, model, state, loop, export. `kerastrain.run` is the way in.

    result = Session(job, workdir).run()

Everything that can fail early does so before the first step, and before
anything in the work directory is changed.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.callbacks.early_stopping import EarlyStopping
from kerastrain.callbacks.metrics_log import MetricsLog
from kerastrain.callbacks.progress import ProgressDisplay
from kerastrain.callbacks.tensorboard import TensorBoardLog
from kerastrain.data.source import Data
from kerastrain.errors import Interrupted, RecipeError
from kerastrain.export.publishing import check_exportable, publish, published_before
from kerastrain.objective import Objective
from kerastrain.options import Interval, TrainOptions
from kerastrain.outcome import best_of, explanation, strict
from kerastrain.preflight import check_labels, check_objective
from kerastrain.training.checkpoints import KEEP_CHECKPOINTS, CheckpointFolder
from kerastrain.training.environment import (
    describe_environment,
    environment_differences,
    set_threads,
)
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Executor
from kerastrain.training.identity import describe_model, model_differences
from kerastrain.training.loop import Ended, Loop
from kerastrain.training.plan import Plan, in_steps
from kerastrain.training.randomness import deterministic_initializers
from kerastrain.training.signals import Signals
from kerastrain.training.state import TrainState
from kerastrain.training.steps import StepFunction, default_step
from kerastrain.training.strategy import make_strategy
from kerastrain.training.tuning import Choice, measure
from kerastrain.workdir import (
    Workdir,
    read_json,
    refuse_differences,
    write_bytes,
    write_json,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to train, whether it comes from a recipe or from a program.

    Attributes:
        name: of the export.
        given, options: as the user said, and with all defaults filled in.
        recipe: name or path, None for a program's own model.
    """

    name: str
    given: TrainOptions
    options: TrainOptions
    load_data: Callable[[], Data]
    build_model: Callable[[Data], keras.Model]
    step: StepFunction | None = None
    recipe: str | None = None
    recipe_sha256: str | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1
    override: bool = False


class Session:
    """One start of one run, in a work directory whose lock is held."""

    def __init__(self, job: Job, workdir: Workdir):
        self.job = job
        self.options = job.options
        self.workdir = workdir
        self.recorded = read_json(workdir.run_file) if workdir.run_file.exists() else None
        self.objective = Objective.parse(job.options.objective or "val_loss")

    def run(self) -> dict[str, Any]:
        """Trains to an end and publishes; returns what `result.json` holds.

        Raises:
            Interrupted: a signal ended it; everything is saved.
            KerastrainError: whatever the user can correct.
        """
        with Signals() as signals:
            self._prepare_devices()
            data = self._load_data()
            loop = self._assemble(data)
            with self._closing(loop):
                ended = loop.run(signals)
                loop.end()
            if ended.reason == "signal":
                raise Interrupted(
                    f"Stopped by {signals.received.name if signals.received else 'a signal'} at "
                    f"step {ended.step}; everything is saved. Run the same command to go on.",
                    exit_status=signals.exit_status,
                )
            return self._finish(data, loop, ended)

    # Before the first step.

    def _prepare_devices(self) -> None:
        set_threads(None if self.recorded is None else self.recorded["environment"])
        if tf.config.list_physical_devices("GPU"):
            # Without it the same step can give other bytes on a GPU.
            tf.config.experimental.enable_op_determinism()
        self.strategy = make_strategy(self.options.strategy)
        self.environment = describe_environment(replicas=self.strategy.num_replicas_in_sync)
        if self.recorded is not None:
            differences = environment_differences(self.recorded["environment"], self.environment)
            self._refuse("was trained in another environment", differences)

    def _load_data(self) -> Data:
        data = self.job.load_data()
        if not isinstance(data, Data):
            raise RecipeError(
                f"load_data of the recipe '{self.job.name}' returned {type(data).__name__}; "
                "expected a kerastrain.Data."
            )
        self.fingerprint = data.fingerprint()
        if self.recorded is not None and self.recorded["data_fingerprint"] != self.fingerprint:
            self._refuse("was trained on other data", ["the data's fingerprint differs"])
        return data

    def _refuse(self, what: str, differences: list[str]) -> None:
        refuse_differences(self.workdir, what, differences, override=self.job.override)

    def _assemble(self, data: Data) -> Loop:
        options = self.options
        state = self._build_state(data)
        check_objective(self.objective, state.model, data)
        check_labels(state.model, data)
        self._check_model(state.model, data)
        step = self.job.step or default_step(state.model)
        executor = Executor(
            state, step, data.train, batch_size=_given(options.batch_size), seed=options.seed
        )
        evaluator = None if data.validation is None else Evaluator(state, data.validation)
        self._record(data)
        checkpoints = CheckpointFolder(
            self.workdir.latest_checkpoints,
            state.checkpoint(),
            describe=state.describe,
            keep=KEEP_CHECKPOINTS,
        )
        if checkpoints.restore_newest() is not None:
            state.unpack()
            logger.info("Going on from step %d.", state.step)
        choice = self._choose(executor, state)
        plan = self._plan(executor, choice)

        def save() -> None:
            state.pack()
            checkpoints.save(state.step)

        self.early_stopping = self._early_stopping()
        interval = Interval.parse(options.checkpoint_every, flag="checkpoint_every")
        return Loop(
            state,
            executor,
            evaluator,
            callbacks=self._callbacks(),
            plan=plan,
            jit=choice.jit,
            step_seconds=choice.step_seconds,
            objective=self.objective,
            save=save,
            checkpoint_seconds=interval.count if interval.unit == "seconds" else None,
        )

    def _build_state(self, data: Data) -> TrainState:
        options = self.options
        first = data.train.take(np.arange(min(4, len(data.train)))).structure()
        with self.strategy.scope(), deterministic_initializers(options.seed):
            with _dtype_policy(None if self.job.recipe is None else options.precision):
                model = self.job.build_model(data)
            if not isinstance(model, keras.Model):
                maker = f"build_model of {self.job.recipe}" if self.job.recipe else "The function"
                raise RecipeError(
                    f"{maker} returned {type(model).__name__}; expected a compiled keras.Model."
                )
            return TrainState(model, strategy=self.strategy, seed=options.seed, batch=first)

    def _check_model(self, model: keras.Model, data: Data) -> None:
        self.model = describe_model(model)
        if self.recorded is None:
            check_exportable(model, data)
        else:
            differences = model_differences(self.recorded["model"], self.model)
            self._refuse("trains another model", differences)

    def _record(self, data: Data) -> None:
        """Writes what this run is, at its first start; later ones must be the same run.

        Every check has passed: from here on, a finished run that goes on is not finished.
        """
        self.workdir.result_file.unlink(missing_ok=True)
        if self.recorded is not None and not self.job.override:
            budgets = {"given": self.job.given.to_json(), "resolved": self.options.to_json()}
            if any(self.recorded[name] != value for name, value in budgets.items()):
                write_json(self.workdir.run_file, {**self.recorded, **budgets})
            return
        if data.split_rows:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **data.split_rows)
            write_bytes(self.workdir.splits_file, buffer.getvalue())
        write_json(
            self.workdir.run_file,
            {
                "recipe": self.job.recipe,
                "recipe_sha256": self.job.recipe_sha256,
                "given": self.job.given.to_json(),
                "resolved": self.options.to_json(),
                "data": dict(data.description),
                "data_fingerprint": self.fingerprint,
                "environment": self.environment,
                "model": self.model,
            },
        )

    def _choose(self, executor: Executor, state: TrainState) -> Choice:
        """How steps are run: as recorded, or measured now and recorded."""
        recorded = self.workdir.executor_file
        choice = Choice.from_json(read_json(recorded)) if recorded.exists() else None
        contradicts = choice is not None and self.options.jit not in ("auto", choice.flag)
        if choice is None or contradicts:  # The latter takes --override, as all differences do.
            total = self._last_step(executor)
            choice = measure(executor, state, jit=self.options.jit, total_steps=total)
            write_json(self.workdir.executor_file, choice.to_json())
        logger.info("Steps run %s; examples %s.", choice.reason, executor.place.kind)
        return choice

    def _last_step(self, executor: Executor) -> int:
        by_epochs = _given(self.options.max_epochs) * executor.batches.steps_per_epoch
        return min(by_epochs, self.options.max_steps or by_epochs)

    def _plan(self, executor: Executor, choice: Choice) -> Plan:
        per_epoch = executor.batches.steps_per_epoch
        evaluate = in_steps(
            Interval.parse(self.options.evaluate_every, flag="evaluate_every"),
            steps_per_epoch=per_epoch,
        )
        checkpoint = Interval.parse(self.options.checkpoint_every, flag="checkpoint_every")
        return Plan(
            steps_per_epoch=per_epoch,
            evaluate_every=_given(evaluate),
            log_every=choice.log_every,
            last_step=self._last_step(executor),
            checkpoint_every=in_steps(checkpoint, steps_per_epoch=per_epoch),
        )

    def _early_stopping(self) -> EarlyStopping:
        """The user's own EarlyStopping of this package, or one made from the options."""
        own = next((c for c in self.job.callbacks if isinstance(c, EarlyStopping)), None)
        if own is not None:
            return own
        patience = self.options.patience
        return EarlyStopping(
            monitor=self.objective.name,
            mode=self.objective.direction,
            # No patience given: the best is kept all the same, and the run goes to its budget.
            patience=NEVER if patience is None else patience,
        )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        early_stopping = self.early_stopping
        self._lent = (early_stopping, early_stopping.directory, early_stopping.restore_best_weights)
        early_stopping.directory = early_stopping.directory or self.workdir.best_checkpoints
        early_stopping.restore_best_weights = True
        others = [c for c in self.job.callbacks if c is not early_stopping]
        logs = [
            MetricsLog(self.workdir.metrics_file),
            TensorBoardLog(self.workdir.tensorboard),
            *([ProgressDisplay()] if self.job.verbose else []),
        ]
        # After the user's own, so that at the end the best weights are the last word.
        return [*others, early_stopping, *logs]

    @contextlib.contextmanager
    def _closing(self, loop: Loop) -> Iterator[None]:
        """Closes displays and log files however the loop ends."""
        try:
            yield
        finally:
            for callback in loop.callbacks.callbacks:
                if hasattr(callback, "close"):
                    callback.close()
            # A callback of the user's own may serve in another run.
            own, directory, restores = self._lent
            own.directory, own.restore_best_weights = directory, restores

    # After the last step.

    def _finish(self, data: Data, loop: Loop, ended: Ended) -> dict[str, Any]:
        early_stopping, history = self.early_stopping, loop.state.host.get("history", [])
        stopped = explanation(ended, early_stopping=early_stopping, options=self.options)
        best = best_of(ended, stopped, early_stopping=early_stopping, history=history)
        logger.info("%s", stopped)
        facts = {
            "recipe": self.job.recipe,
            "options": self.options.to_json(),
            "step": best["step"],
            "objective": str(self.objective),
            "best": best,
            "stopped": stopped,
            "data": {**data.description, "fingerprint": self.fingerprint},
        }
        base = self.workdir.exports / self.job.name
        published = published_before(base, facts) or publish(
            loop.state.model, data, base=base, facts=facts
        )
        result = {
            "ended": ended.reason,
            "stopped": stopped,
            "step": ended.step,
            "epoch": loop.plan.epoch_at(ended.step),
            "best": best,
            "metrics": published.metrics,
            "export": str(published.path.relative_to(self.workdir.path)),
            "history": strict(history),
        }
        write_json(self.workdir.result_file, result)
        return result


# A patience that no run uses up.
NEVER = 10**9


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    """Layers made inside compute in this precision; None: as the program has set it."""
    if name is None:
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _given(value: int | None) -> int:
    """A value that resolving the options has filled in."""
    assert value is not None
    return value
