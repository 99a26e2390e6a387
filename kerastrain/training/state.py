"""TrainState: all that a checkpoint holds. What is not in it does not survive.

    state = TrainState(model, strategy=strategy, seed=0, batch=first_batch)
    state.variables()             # {"model": [(path, variable), …], "optimizer": …, "metrics": …}
    state.pack()                  # step and host values as one text
    state.describe()              # [["model", path, shape, dtype], …] for the strict match

Variables are flat lists of raw `tf.Variable`s. `tf.train.Checkpoint(model=model)`
would silently leave out seed generators, metrics and layers held in Python lists.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.errors import CheckpointError, KerastrainError, OptionsError, TrainingError
from kerastrain.training.kept_variables import untracked_variables
from kerastrain.training.learning_rate import optimizers_of
from kerastrain.training.randomness import SeedStreams
from kerastrain.training.strategy import replica_values


class TrainState:
    """A compiled model under training, its position, and host values that must survive.

    Attributes:
        model, optimizer: Keras's own.
        step: optimizer steps done (the global step).
        host: JSON-able values: history, callbacks' progress, environment.
    """

    def __init__(
        self, model: keras.Model, *, strategy: tf.distribute.Strategy, seed: int, batch: Any
    ):
        """Builds everything that Keras would build at the first batch.

        Args:
            model: compiled; made inside `strategy.scope()`.
            batch: a few examples, (inputs, targets[, weights]), by which a model that
                is not built yet learns its shapes.

        Raises:
            KerastrainError: the model is not compiled, was made outside the strategy's
                scope, or does not take these examples.
        """
        if not getattr(model, "compiled", False) or model.optimizer is None:
            raise KerastrainError(
                f"The model '{model.name}' is not compiled; "
                "call model.compile(optimizer=…, loss=…) first."
            )
        self.model = model
        self.optimizer = model.optimizer
        self.strategy = strategy
        self.step = 0
        self.host: dict[str, Any] = {}
        if strategy.num_replicas_in_sync > 1:
            self._check_scope()
        with strategy.scope():
            self._build(batch)
        self._others: list[tf.Variable] = []
        self.remember_compiled()
        self._check_metrics()
        self._loss_metric = next((m for m in model.metrics if m.name == "loss"), None)
        self._untracked_variables = untracked_variables(model)
        self._seeds = SeedStreams(model, seed, replicas=strategy.num_replicas_in_sync)
        if strategy.num_replicas_in_sync > 1:
            self._check_optimizer()

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def trainable_values(self) -> list[tf.Variable]:
        """The raw trainable variables, in Keras's order: what gradients are taken of."""
        return [v.value for v in self.model.trainable_variables]

    @property
    def learning_rate(self) -> float:
        """Of the optimizer; of several, the first one's."""
        first = optimizers_of(self.optimizer)[0]
        return float(keras.ops.convert_to_numpy(first.learning_rate))

    # What step functions use.

    def predict(self, inputs: Any, *, training: bool) -> Any:
        """The model's outputs; `training` is passed on when the model takes it."""
        if self.model._call_has_training_arg:
            return self.model(inputs, training=training)
        return self.model(inputs)

    def begin_step(self, step: tf.Tensor) -> None:
        """Sets the random numbers of this step on this replica. step: int64 scalar."""
        context = tf.distribute.get_replica_context()
        self._seeds.set(step, tf.cast(context.replica_id_in_sync_group, tf.int64))

    def apply_gradients(self, gradients: list[tf.Tensor | None]) -> None:
        """One optimizer update, the same on every replica.

        Over several replicas the gradients are summed and clipped first: Keras's own order
        (clip and look for infinities, then sum) clips each replica's share by itself and
        lets replicas disagree on whether to skip a step.
        """
        if self.replicas > 1:
            whole = self._clipped(self._summed(gradients))
            # Keras sums over the replicas once more when it applies, hence the division.
            gradients = [None if g is None else g / self.replicas for g in whole]
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def update_metrics(
        self, loss: Any, x: Any, y: Any, predictions: Any, weights: Any
    ) -> tf.Tensor:
        """Updates the running loss and the compiled metrics; returns this replica's mean loss."""
        own_loss = tf.cast(loss, tf.float32) * self.replicas
        rows = tf.shape(tf.nest.flatten(x)[0])[0]
        if self._loss_metric is not None:
            self._loss_metric.update_state(own_loss, sample_weight=rows)
        self.model.compute_metrics(x, y, predictions, weights)
        return own_loss

    # What is saved.

    def variables(self) -> dict[str, list[tuple[str, tf.Variable]]]:
        """Every variable that is saved, by group, as (path, raw variable)."""
        optimizer = [(v.path, v.value) for v in self.optimizer.variables]
        return {
            "model": self._with_replicas(self.model.variables) + self._untracked(),
            "optimizer": optimizer,
            "metrics": self._with_replicas(self.model.metrics_variables),
            "others": [(v.name.removesuffix(":0"), v) for v in self._others],
        }

    def keep(self, captured: Sequence[tf.Variable]) -> None:
        """Take what a traced step or evaluation reads besides into what is saved and restored.

        A second optimizer, an average teacher, a loss's weight: whatever lies outside the model.
        """
        known = {id(variable) for variable in self._plain_variables()}
        known |= {id(state.value) for state in self._seeds.states}  # Set anew at each step.
        # In the order of the trace; names have numbers that count what the process made before.
        self._others += {id(v): v for v in captured if id(v) not in known}.values()

    def not_found(self, captured: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Return the numbers among captured variables that do not belong to model or metrics.

        The best weights and the export would go without them.
        """
        groups = self.variables()
        found = [variable for group in ("model", "metrics") for _, variable in groups[group]]
        known = {id(copy) for variable in found for copy in replica_values(variable)}
        return [v for v in captured if v.dtype.is_floating and id(v) not in known]

    def remember_compiled(self) -> None:
        """Note what steps that are compiled from now on are compiled for."""
        self._compiled_for = self._what_is_trained()

    def check_unchanged(self) -> None:
        """Refuse a model that was compiled anew, or frozen otherwise, since its step was compiled.

        Raises:
            TrainingError: a callback has done so; it says what to do instead.
        """
        now = self._what_is_trained()
        changed = [what for what, value in self._compiled_for.items() if now[what] != value]
        if changed:
            raise TrainingError(
                f"At step {self.step:,} a callback changed {', '.join(changed)}. Steps were "
                "compiled for the model as it was, so this would have no effect. Train in two "
                "runs: end this one before the change, change and compile the model, and give it "
                "to a second run in a --workdir of its own. (Within a run the learning rate and "
                "the values of variables may change.)"
            )

    def _what_is_trained(self) -> dict[str, Any]:
        """What is fixed once a step is compiled, by the name that a user would give it."""
        model = self.model
        return {
            "the optimizer": id(model.optimizer),
            "the learning rate's schedule": [
                id(getattr(each, "_learning_rate", None)) for each in optimizers_of(model.optimizer)
            ],
            "the optimizer's settings": [
                {name: value for name, value in vars(each).items() if _is_setting(name, value)}
                for each in optimizers_of(
                    getattr(model.optimizer, "inner_optimizer", model.optimizer)
                )
            ],
            "the compiled loss": id(model._compile_loss),
            "the compiled metrics": id(model._compile_metrics),
            "which weights are trainable": [id(v) for v in model.trainable_variables],
        }

    def _untracked(self) -> list[tuple[str, tf.Variable]]:
        return [
            (path if len(copies) == 1 else f"{path}@{i}", copy)
            for path, variable in self._untracked_variables
            for copies in [replica_values(variable)]
            for i, copy in enumerate(copies)
        ]

    def describe(self) -> list[list[Any]]:
        """[group, path, shape, dtype] of every saved variable, in the order of saving."""
        return [
            [group, path, list(variable.shape), variable.dtype.name]
            for group, members in self.variables().items()
            for path, variable in members
        ]

    def pack(self) -> str:
        """Step and host values as one text."""
        values = {"step": self.step, **self.host}
        # Callbacks may keep NumPy's numbers.
        return json.dumps(values, default=lambda value: value.tolist())

    def unpack(self, text: str | bytes) -> None:
        """Takes step and host values from a text that `pack` made.

        Raises:
            CheckpointError: it is no such text.
        """
        try:
            self.host = json.loads(text)
            self.step = int(self.host.pop("step"))
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint's host values cannot be read: {error}"
            ) from error

    # Copies in memory, for measuring how steps are best run.

    def snapshot(self) -> list[np.ndarray]:
        """The values of all variables."""
        return [variable.numpy() for variable in self._plain_variables()]

    def assign(self, snapshot: list[np.ndarray]) -> None:
        """Puts every variable back to a snapshot."""
        for variable, value in zip(self._plain_variables(), snapshot, strict=True):
            variable.assign(value)

    def running_metrics(self) -> list[np.ndarray]:
        """The values of the metrics' variables, on every replica."""
        return [variable.numpy() for _, variable in self.variables()["metrics"]]

    def assign_running_metrics(self, values: list[np.ndarray]) -> None:
        """Puts the metrics back to what `running_metrics` gave."""
        for (_, variable), value in zip(self.variables()["metrics"], values, strict=True):
            variable.assign(value)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Inside, the model has the averaged weights of an optimizer with `use_ema`.

        Without averaging nothing changes.
        """
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not any(optimizer.use_ema for optimizer in optimizers_of(inner)):
            yield
            return
        trained = [variable.numpy() for variable in self.trainable_values]
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        yield
        for variable, value in zip(self.trainable_values, trained, strict=True):
            variable.assign(value)

    def average_replicas(self) -> None:
        """Makes replica-local statistics (batch normalisation's) the mean of all replicas.

        Called before each evaluation, so that what is evaluated, kept and exported is one
        model. A no-op on one device.
        """
        if self.replicas == 1:
            return
        for variable in self.model.non_trainable_variables:
            copies = replica_values(variable.value)
            if len(copies) > 1 and variable.value.dtype.is_floating:
                values = [copy.numpy() for copy in copies]
                if all(value.tobytes() == values[0].tobytes() for value in values):
                    continue  # Already one: the mean of three equal numbers can be another.
                mean = np.mean(values, axis=0)
                for copy in copies:
                    copy.assign(mean.astype(copy.dtype.as_numpy_dtype))

    def _plain_variables(self) -> list[tf.Variable]:
        return [
            copy
            for members in self.variables().values()
            for _, variable in members
            for copy in replica_values(variable)
        ]

    def _with_replicas(self, variables: list[Any]) -> list[tuple[str, tf.Variable]]:
        """Variables whose replicas differ (metrics, statistics, seeds) one by one, others once."""
        named = []
        for variable in variables:
            copies = replica_values(variable.value)
            if variable.trainable or len(copies) == 1:
                named.append((variable.path, variable.value))
            else:
                named += [(f"{variable.path}@{i}", copy) for i, copy in enumerate(copies)]
        return named

    def _build(self, batch: Any) -> None:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        try:
            # Keras's own way of building model, loss and metrics without running them.
            self.model._symbolic_build(data_batch=(x, y, weights))
        except KerastrainError:
            raise
        except Exception as error:
            raise KerastrainError(
                f"The model '{self.model.name}' does not take these examples "
                f"(inputs {_spec(x)}, targets {_spec(y)}): {error}"
            ) from error
        self.optimizer.build(self.model.trainable_variables)

    def _summed(self, gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
        context = tf.distribute.get_replica_context()
        present = [g for g in gradients if g is not None]
        reduced = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
        # Embeddings give sparse gradients (IndexedSlices), which cannot be divided.
        return [None if g is None else tf.convert_to_tensor(next(reduced)) for g in gradients]

    def _clipped(self, gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
        if not _clips(self.optimizer):
            return gradients
        clipped = iter(self.optimizer._clip_gradients([g for g in gradients if g is not None]))
        return [None if g is None else next(clipped) for g in gradients]

    def _check_metrics(self) -> None:
        narrow = [v for v in self.model.metrics_variables if v.dtype in ("float16", "bfloat16")]
        if narrow:
            raise KerastrainError(
                f"The metric variable '{narrow[0].path}' is {narrow[0].dtype}, in which a sum over "
                f"an epoch is wrong (Keras's floatx is {keras.config.floatx()}). Call "
                "keras.config.set_floatx('float32') before the model is made; to compute in 16 "
                "bits set Keras's dtype policy to mixed_float16 or mixed_bfloat16."
            )

    def _check_scope(self) -> None:
        outside = [
            v.path for v in self.model.variables if len(replica_values(v.value)) != self.replicas
        ]
        if outside:
            raise KerastrainError(
                f"The model '{self.model.name}' was made outside the strategy's scope "
                f"({outside[0]} lies on one device, the run uses {self.replicas}). Give a "
                "function that returns the compiled model instead of the model, or use "
                "strategy='one_device'."
            )

    def _check_optimizer(self) -> None:
        if getattr(self.optimizer, "gradient_accumulation_steps", None):
            raise OptionsError(
                f"gradient_accumulation_steps is not supported over {self.replicas} replicas. "
                "Use a larger --batch_size, or --strategy=one_device."
            )
        inner = getattr(self.optimizer, "inner_optimizer", None)
        if inner is not None and _clips(inner):
            # The scaled gradients cannot be clipped before the optimizer has unscaled them.
            raise OptionsError(
                f"Gradient clipping with loss scaling is not supported over {self.replicas} "
                "replicas. Use --precision=mixed_bfloat16 or --strategy=one_device."
            )


def _is_setting(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, (bool, int, float, str, type(None)))


def _clips(optimizer: keras.Optimizer) -> bool:
    limits = ("clipnorm", "global_clipnorm", "clipvalue")
    return any(getattr(optimizer, limit, None) is not None for limit in limits)


def _spec(value: Any) -> Any:
    return tf.nest.map_structure(
        lambda array: (
            f"{array.dtype.name if hasattr(array.dtype, 'name') else array.dtype}"
            f"{list(array.shape)}"
        ),
        value,
    )
