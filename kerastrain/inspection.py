"""Before the first step: data and model are made, and everything about them is checked.

    found = Inspection(job, workdir, recorded).run()
    found.state, found.executor, found.evaluator

At the first start of a run all checks are made; at a later one those that say whether it is
still the same run. Nothing is written into the work directory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.callbacks.measurements import measurements_for
from kerastrain.data.order import epoch_order
from kerastrain.data.source import Data, Examples
from kerastrain.errors import RecipeError
from kerastrain.export import verification
from kerastrain.export.publishing import rehearse
from kerastrain.job import Job
from kerastrain.options import AUTO
from kerastrain.preflight import (
    Preflight,
    check_disk,
    check_finite,
    check_labels,
    check_objective,
    check_round_trip,
    check_rule,
    check_steps,
)
from kerastrain.schedules import parse_schedule, set_schedule
from kerastrain.training.environment import (
    describe_environment,
    environment_differences,
    set_threads,
)
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Batches, Executor
from kerastrain.training.identity import describe_model, model_differences
from kerastrain.training.randomness import deterministic_initializers
from kerastrain.training.retention import Retention
from kerastrain.training.staging import Staging
from kerastrain.training.state import TrainState
from kerastrain.training.steps import StepFunction, default_step
from kerastrain.training.strategy import make_strategy
from kerastrain.workdir import Workdir, refuse_differences


@dataclass(frozen=True)
class Inspected:
    """Data and a model, ready to be trained, and what was found out about them.

    Attributes:
        measurements: callbacks that report what the stopping rule needs besides metrics.
        identity: what may not differ between the starts of a run, for its record.
        export_seconds: of an export, its fresh process included: an upper bound. None at
            later starts.
    """

    data: Data
    state: TrainState
    executor: Executor
    evaluator: Evaluator | None
    staging: Staging
    measurements: Sequence[keras.callbacks.Callback]
    identity: Mapping[str, Any]
    export_seconds: float | None


class Inspection:
    """Of one start of one run.

    Args:
        recorded: what the run's first start recorded of it; None: this is the first.
    """

    def __init__(self, job: Job, workdir: Workdir, recorded: Mapping[str, Any] | None):
        self.job = job
        self.options = job.options
        self.workdir = workdir
        self.recorded = recorded
        self.preflight = Preflight()

    def run(self) -> Inspected:
        """Makes data and model and checks them.

        Raises:
            KerastrainError: the run could not be trained, or is not the recorded one.
        """
        began = time.monotonic()
        self._prepare_devices()
        with contextlib.ExitStack() as stack:
            process = None
            if self.recorded is None:
                # While it imports TensorFlow, the data are read and the model is made.
                process = stack.enter_context(verification.FreshProcess())
            data = self._load_data()
            state = self._build_state(data)
            executor, evaluator = self._executor(state, data)
            staging = Staging(state)
            self._check_run(state, data)
            if process is not None:
                self._check_training(state, executor, evaluator, staging)
                self.preflight.check("export", lambda: rehearse(state.model, data, process))
        return Inspected(
            data=data,
            state=state,
            executor=executor,
            evaluator=evaluator,
            staging=staging,
            measurements=measurements_for(
                self.job.stop_rule,
                train=data.train,
                validation=self._validation(data),
                batch_size=executor.batches.batch_size,
                seed=self.options.seed,
            ),
            identity={
                "recipe": self.job.recipe,
                "recipe_sha256": self.job.recipe_sha256,
                "data": dict(data.description),
                "data_fingerprint": self.fingerprint,
                "environment": self.environment,
                "model": describe_model(state.model),
            },
            export_seconds=time.monotonic() - began if process is not None else None,
        )

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
            self._set_schedule(model, data)
            return TrainState(model, strategy=self.strategy, seed=options.seed, batch=first)

    def _set_schedule(self, model: keras.Model, data: Data) -> None:
        options = self.options
        if options.schedule is not None and model.optimizer is not None:
            set_schedule(
                model.optimizer,
                parse_schedule(options.schedule),
                rate=None if options.learning_rate == AUTO else options.learning_rate,
                steps_per_epoch=self._batches(data).steps_per_epoch,
            )

    def _batches(self, data: Data) -> Batches:
        return Batches.of(
            examples=len(data.train),
            batch_size=self._batch_size(data),
            replicas=self.strategy.num_replicas_in_sync,
        )

    def _batch_size(self, data: Data) -> int:
        size = self.options.batch_size
        assert size is not None  # Resolving has filled it in.
        return len(data.train) if isinstance(size, str) else size

    def _executor(self, state: TrainState, data: Data) -> tuple[Executor, Evaluator | None]:
        step, size = self._step(state.model), self._batch_size(data)
        executor = Executor(state, step, data.train, batch_size=size, seed=self.options.seed)
        validation = self._validation(data)
        return executor, None if validation is None else Evaluator(state, validation)

    def _validation(self, data: Data) -> Examples | None:
        """What is evaluated: all validation examples, or always the same ones of them."""
        count, validation = self.options.evaluate_examples, data.validation
        if validation is None or count is None or count >= len(validation):
            return validation
        order = epoch_order(seed=self.options.seed, epoch=0, examples=len(validation))
        return validation.take(np.sort(order.numpy()[:count]))

    def _step(self, model: keras.Model) -> StepFunction:
        return self.job.step or default_step(model)

    def _check_run(self, state: TrainState, data: Data) -> None:
        """What is checked at every start."""
        check, model = self.preflight.check, state.model
        check("objective", lambda: check_objective(self.job.objective, model, data))
        check("stop", lambda: check_rule(self.job.stop_rule, self.job.objective, state, data))
        check("labels", lambda: check_labels(model, data))
        check("data", lambda: check_finite(state, self._step(model), data))
        if self.recorded is not None:
            differences = model_differences(self.recorded["model"], describe_model(model))
            self._refuse("trains another model", differences)

    def _check_training(
        self,
        state: TrainState,
        executor: Executor,
        evaluator: Evaluator | None,
        staging: Staging,
    ) -> None:
        """What is checked at the first start, and cannot change."""
        check, folder = self.preflight.check, self.workdir.path
        check("disk", lambda: self._check_disk(state))
        check("steps", lambda: check_steps(executor, evaluator, state))
        check("checkpoint", lambda: check_round_trip(staging, state, folder))

    def _check_disk(self, state: TrainState) -> str:
        keeps = Retention.of(self.options, self.job.objective)
        return check_disk(
            self.workdir.path,
            state_bytes=sum(value.nbytes for value in state.snapshot()),
            weight_bytes=sum(variable.numpy().nbytes for variable in state.trainable_values),
            checkpoints=keeps.last + keeps.best + 1,  # One from before the best weights.
        )


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
