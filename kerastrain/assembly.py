"""From a job to what trains: data, model, state, executor, evaluator. Nothing is checked here.

assembly = Assembly(job, threads=None)
data = assembly.load_data()
state = assembly.state(data)
executor, evaluator = assembly.executor(state, data), assembly.evaluator(state, data)
assembly.range_test(data).suggestion     # of a model that is thrown away again
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.order import epoch_order
from kerastrain.data.source import Data, Examples
from kerastrain.errors import KerastrainError, OptionsError, RecipeError
from kerastrain.job import Job
from kerastrain.options import TrainOptions
from kerastrain.schedules import parse_schedule, set_schedule
from kerastrain.training.environment import describe_environment, set_threads
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Batches, Executor
from kerastrain.training.identity import automatic_names_restored
from kerastrain.training.randomness import deterministic_initializers
from kerastrain.training.range_test import FIRST_RATE, LAST_RATE, RangeTest, range_test
from kerastrain.training.state import TrainState
from kerastrain.training.steps import StepFunction, default_step
from kerastrain.training.strategy import make_strategy

logger = logging.getLogger(__name__)

# What a recipe is given for a rate that is to be found; the range test sets its own.
TRIAL_RATE = 1e-3


class Assembly:
    """What one start of a run is made of.

    Args:
        environment: as the run's first start recorded it, for the number of threads; None:
            this is the first.

    Attributes:
        options: the job's; with a learning rate that was found, once `take_rate` was told.
        found_rate: that one, else None.
    """

    def __init__(self, job: Job, environment: Mapping[str, Any] | None):
        self.job = job
        self.options = job.options
        self.found_rate: float | None = None
        set_threads(environment)
        if tf.config.list_physical_devices("GPU"):
            # Without it the same step can give other bytes on a GPU.
            tf.config.experimental.enable_op_determinism()
        self.strategy = make_strategy(self.options.strategy)
        policy = keras.config.dtype_policy().name
        if job.recipe is not None and policy not in ("float32", self.options.precision):
            logger.warning(
                "Keras's dtype policy is set to %s, and --precision=%s takes its place for the "
                "recipe's model. Only what build_model itself sets stays.",
                policy,
                self.options.precision,
            )

    @property
    def environment(self) -> dict[str, Any]:
        """As it is now: building a model may change Keras's settings."""
        return describe_environment(replicas=self.strategy.num_replicas_in_sync)

    def load_data(self) -> Data:
        """The job's data.

        Raises:
            RecipeError: its recipe gives something else.
        """
        data = self.job.load_data()
        if not isinstance(data, Data):
            raise RecipeError(
                f"load_data of the recipe '{self.job.name}' returned {type(data).__name__}; "
                "expected a kerastrain.Data."
            )
        return data

    def take_rate(self, rate: float) -> None:
        """From now on models are made with this learning rate."""
        self.found_rate = rate
        self.options = dataclasses.replace(self.options, learning_rate=rate)

    def state(self, data: Data) -> TrainState:
        """A new model, built and ready to be trained.

        Raises:
            KerastrainError: the recipe gives no model that can be trained on these data.
        """
        return self._state(self.options, data)

    def executor(self, state: TrainState, data: Data) -> Executor:
        """What runs the steps of a state."""
        size, seed = self._batch_size(data), self.options.seed
        return Executor(state, self.step(state.model), data.train, batch_size=size, seed=seed)

    def evaluator(self, state: TrainState, data: Data) -> Evaluator | None:
        """What evaluates a state; None without validation examples."""
        validation = self.validation(data)
        if validation is None:
            return None
        # Left out, as in fit: what a training step holds suffices for an evaluation's.
        given = self.options.evaluate_batch or self._batch_size(data)
        size = len(validation) if isinstance(given, str) else given
        return Evaluator(state, validation, batch_size=size)

    def validation(self, data: Data) -> Examples | None:
        """What is evaluated: all validation examples, or always the same ones of them."""
        count, validation = self.options.evaluate_examples, data.validation
        if validation is None or count is None or count >= len(validation):
            return validation
        order = epoch_order(seed=self.options.seed, epoch=0, examples=len(validation))
        return validation.take(np.sort(order.numpy()[:count]))

    def step(self, model: keras.Model) -> StepFunction:
        """The step function of the job, else of the model."""
        return self.job.step or default_step(model)

    def range_test(self, data: Data) -> RangeTest:
        """A learning-rate range test on a model that is thrown away.

        What is made afterwards is what it would have been without.

        Raises:
            OptionsError: the loss never fell, so nothing can be suggested.
        """
        options = dataclasses.replace(self.options, learning_rate=TRIAL_RATE, schedule=None)
        with automatic_names_restored():
            state = self._state(options, data)
            found = range_test(
                state,
                self.step(state.model),
                data.train,
                batch_size=self._batch_size(data),
                seed=options.seed,
            )
        if found.suggestion is None:
            never = "never fell" if math.isfinite(found.losses[0]) else "was not finite at once"
            raise OptionsError(
                f"In a range test from {FIRST_RATE:g} to {LAST_RATE:g} the loss {never}, so no "
                "learning rate can be suggested. Give --learning_rate a number; see whether the "
                "model can learn from these data."
            )
        return found

    def _state(self, options: TrainOptions, data: Data) -> TrainState:
        first = data.train.take(np.arange(min(4, len(data.train)))).structure()
        # "all" is a number for recipes, which may reckon with it.
        options = dataclasses.replace(options, batch_size=self._batch_size(data))
        with self.strategy.scope(), deterministic_initializers(options.seed):
            with _dtype_policy(None if self.job.recipe is None else options.precision):
                model = self.job.build_model(options, data)
            if not isinstance(model, keras.Model):
                maker = f"build_model of {self.job.recipe}" if self.job.recipe else "The function"
                raise RecipeError(
                    f"{maker} returned {type(model).__name__}; expected a compiled keras.Model."
                )
            self._set_schedule(model, options, data)
            _check_stateless(model)
            try:
                return TrainState(model, strategy=self.strategy, seed=options.seed, batch=first)
            except KerastrainError as error:
                size = _declared_batch(model) or self._batch_size(data)
                few = len(first[1])
                if _takes(model, first[0], few) or not _takes(model, first[0], size):
                    raise  # It is about something else.
                raise KerastrainError(
                    f"The model '{model.name}' takes {size} rows at a time, but not "
                    f"{few}. Give its Input no batch_size and let layers reshape to -1 "
                    "rows: an epoch's last batch and a server's requests have other numbers."
                ) from error

    def _set_schedule(self, model: keras.Model, options: TrainOptions, data: Data) -> None:
        if options.schedule is None or model.optimizer is None:
            return
        batches = Batches.of(
            examples=len(data.train),
            batch_size=self._batch_size(data),
            replicas=self.strategy.num_replicas_in_sync,
        )
        rate = options.learning_rate
        assert not isinstance(rate, str)  # What was to be found has been.
        set_schedule(
            model.optimizer,
            parse_schedule(options.schedule),
            rate=rate,
            steps_per_epoch=batches.steps_per_epoch,
        )

    def _batch_size(self, data: Data) -> int:
        size = self.options.batch_size
        assert size is not None  # Resolving has filled it in.
        return len(data.train) if isinstance(size, str) else size


def _check_stateless(model: keras.Model) -> None:
    """Raises KerastrainError for a recurrent layer that goes on from the batch before."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise KerastrainError(
                f"The {type(layer).__name__} '{layer.name}' of the model '{model.name}' has "
                "stateful=True: a row goes on from the one in its place in the batch before. Make "
                "it with stateful=False and give whole sequences as rows: examples come in "
                "another order in each epoch, and a server's requests in any."
            )


def _declared_batch(model: keras.Model) -> int | None:
    inputs = getattr(model, "inputs", None) or ()
    return next((tensor.shape[0] for tensor in inputs if tensor.shape[0] is not None), None)


def _takes(model: keras.Model, inputs: Any, rows: int) -> bool:
    """Whether the model takes so many rows at a time."""

    def spec(array: np.ndarray) -> keras.KerasTensor:
        return keras.KerasTensor((rows, *array.shape[1:]), array.dtype.name)

    try:
        model.compute_output_spec(keras.tree.map_structure(spec, inputs))
    except Exception:  # whatever Keras makes of what it cannot call
        return False
    return True


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
