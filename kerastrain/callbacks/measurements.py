"""What some stopping criteria need and a model does not report: two more numbers in the logs.

    callbacks = [LossDifference(validation, z=2), EarlyStopping(stop="significance(z=2)")]
    callbacks = [GradientEvidence(train, batch_size=128, seed=0), EarlyStopping(stop="evidence")]

`kerastrain.train` and the command line add them by themselves where `stop` needs them. They
come before whatever reads the logs.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import OptionsError
from kerastrain.training.stopping import Criterion, Evidence, Significance
from kerastrain.training.stopping.evidence import EVIDENCE
from kerastrain.training.stopping.noise import (
    DIFFERENCE_ERROR,
    VALIDATION_LOSS,
    is_significant,
)

MEASURED = frozenset({DIFFERENCE_ERROR, EVIDENCE})

BATCH_SIZE = 1000
# One batch's estimate is noisy; the mean of a few is what is recorded.
EVIDENCE_BATCHES = 4


def measurements_for(
    rule: Criterion,
    *,
    train: Examples | StoredExamples,
    validation: Examples | None,
    batch_size: int,
    seed: int,
) -> list[keras.callbacks.Callback]:
    """The callbacks that measure what a stopping rule needs, in the order of the rule's names.

    Raises:
        OptionsError: two criteria need the same number measured differently, or it cannot be
            measured with these batches.
    """
    kinds = list(rule.leaves())
    callbacks: list[keras.callbacks.Callback] = []
    zs = {criterion.z for criterion in kinds if isinstance(criterion, Significance)}
    if len(zs) > 1:
        raise OptionsError(
            f"--stop has significance with z of {' and '.join(map(str, sorted(zs)))}; the standard "
            "errors are measured for one z. Use the same in each."
        )
    if zs and validation is not None:
        if len(validation) < 2:
            raise OptionsError(
                "--stop uses significance, which compares the examples of the validation; there is "
                "only one. Give more, or use another criterion."
            )
        # No more at once than in a training step, for which there is memory.
        size = min(batch_size, BATCH_SIZE)
        callbacks.append(LossDifference(validation, z=zs.pop(), batch_size=size))
    if any(isinstance(criterion, Evidence) for criterion in kinds):
        if min(batch_size, len(train)) < 2:
            raise OptionsError(
                "--stop uses evidence, which compares the examples of a batch; a step has only "
                "one. Give a larger --batch_size."
            )
        callbacks.append(GradientEvidence(train, batch_size=batch_size, seed=seed))
    return callbacks


class LossDifference(keras.callbacks.Callback):
    """Adds `val_loss_difference_error` to the logs, for the criterion `significance`.

    It is the standard error of the mean difference between each example's loss at the
    reference and now: the deviation of the differences (n - 1) over sqrt(n). The reference
    is the last evaluation that was better by more than z of these. NaN before there is one.

    Args:
        examples: of the validation; weights are not looked at.
        z: as in the criterion.
    """

    per_chunk = True

    def __init__(self, examples: Examples, *, z: float, batch_size: int = BATCH_SIZE):
        super().__init__()
        self.batch_size = batch_size
        self.examples = examples
        self.z = z
        self._reference: np.ndarray | None = None
        self._value: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._reference, self._value = None, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None or VALIDATION_LOSS not in logs:
            return
        value = float(logs[VALIDATION_LOSS])
        losses = example_losses(self.model, self.examples, batch_size=self.batch_size)
        error = math.nan
        if self._reference is not None:
            differences = self._reference.astype(np.float64) - losses
            error = float(differences.std(ddof=1) / math.sqrt(len(losses)))
        logs[DIFFERENCE_ERROR] = error
        if is_significant(value, than=self._value, error=error, z=self.z):
            self._reference, self._value = losses, value

    def get_state(self) -> dict[str, Any]:
        """The reference, for a checkpoint."""
        reference = self._reference
        text = None if reference is None else base64.b64encode(reference.tobytes()).decode()
        return {"reference": text, "value": self._value}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_state` gave."""
        text = state["reference"]
        self._value = state["value"]
        self._reference = (
            None if text is None else np.frombuffer(base64.b64decode(text), np.float32)
        )


def check_example_losses(model: keras.Model) -> None:
    """Raises OptionsError unless the model has one loss that can be taken for each example."""
    if isinstance(model.loss, (dict, list, tuple)) or model.loss is None:
        raise OptionsError(
            "--stop uses significance, which needs the loss of single examples; the model is "
            "compiled with several losses or none. Use another criterion."
        )


def example_losses(
    model: keras.Model, examples: Examples, *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """The loss of every example, float32 [n], without regularisation and weights."""
    loss = _single_losses(model.loss)
    parts = []
    for first in range(0, len(examples), batch_size):
        rows = np.arange(first, min(first + batch_size, len(examples)))
        x, y, *_ = examples.take(rows).structure()
        losses = tf.reshape(loss(y, model(x, training=False)), [len(rows), -1])
        parts.append(tf.reduce_mean(tf.cast(losses, tf.float32), axis=1).numpy())
    return np.concatenate(parts)


def _single_losses(loss: Any) -> Callable[[Any, Any], Any]:
    """Keras's loss without its mean over the batch."""
    known = keras.losses.get(loss)
    if isinstance(known, keras.losses.Loss):
        config = {**known.get_config(), "reduction": "none"}
        return type(known).from_config(config)
    return known


class GradientEvidence(keras.callbacks.Callback):
    """Adds `evidence` to the logs: 1 - (B / D) · sum_k g_k² / S_k (Mahsereci et al. 2017, eq. 7).

    g is the gradient on a batch of B training examples, S the variance (B - 1) of single
    examples' gradients. Elements without variance (of units that are never active) do not
    count, nor in D. The mean over a few batches, drawn by (seed, epoch); the model runs as in
    inference, so that dropout does not count as noise of the data.

    Args:
        examples: of the training; weights are not looked at.
        batch_size: B, that of the training.
        seed: decides the batches.
    """

    per_chunk = True

    def __init__(self, examples: Examples | StoredExamples, *, batch_size: int, seed: int):
        super().__init__()
        self.examples = examples
        self.batch_size = min(batch_size, len(examples))
        self.seed = seed
        self._moments: Callable[..., Any] | None = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._moments = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        generator = np.random.default_rng([self.seed, epoch])
        size = self.batch_size
        values = []
        for _ in range(EVIDENCE_BATCHES):
            rows = generator.choice(len(self.examples), size, replace=False)
            x, y, *_ = self.examples.take(rows).structure()
            sums, squares = self._gradient_moments()(tf.nest.map_structure(tf.constant, (x, y)))
            values.append(
                evidence([s.numpy() for s in sums], [s.numpy() for s in squares], examples=size)
            )
        logs[EVIDENCE] = float(np.mean(values))

    def _gradient_moments(self) -> Callable[..., Any]:
        if self._moments is None:
            self._moments = _gradient_moments(self.model)
        return self._moments


def evidence(sums: list[np.ndarray], squares: list[np.ndarray], *, examples: int) -> float:
    """Mahsereci et al. (2017), eq. 7, from the sums over single examples' gradients.

    Args:
        sums, squares: of the gradients and of their squares, an array for each variable.
        examples: B, at least 2.
    """
    total = np.concatenate([s.ravel() for s in sums]).astype(np.float64)
    square = np.concatenate([s.ravel() for s in squares]).astype(np.float64)
    mean = total / examples
    variance = np.maximum(square - examples * mean**2, 0.0) / (examples - 1)
    # What is left of equal numbers by rounding is no variance.
    varies = variance > 1e-12 * square
    if not varies.any():
        return math.nan
    ratio = mean[varies] ** 2 / variance[varies]
    return float(1 - examples * ratio.mean())


def _gradient_moments(model: keras.Model) -> Callable[..., Any]:
    """(x, y) of a batch to the sums of single examples' gradients and of their squares."""
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function(reduce_retracing=True)
    def moments(batch: Any) -> Any:
        count = tf.shape(tf.nest.flatten(batch)[0])[0]
        sums = [tf.zeros(v.shape, tf.float32) for v in variables]
        squares = [tf.zeros(v.shape, tf.float32) for v in variables]
        for row in tf.range(count):
            x, y = tf.nest.map_structure(lambda t, row=row: t[row : row + 1], batch)
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=False), None, training=False)
            gradients = [
                tf.cast(tf.convert_to_tensor(g), tf.float32)
                for g in tape.gradient(loss, variables, unconnected_gradients="zero")
            ]
            sums = [s + g for s, g in zip(sums, gradients, strict=True)]
            squares = [s + g * g for s, g in zip(squares, gradients, strict=True)]
        return sums, squares

    return moments


def check_plain_sgd(optimizer: keras.Optimizer, *, replicas: int) -> None:
    """Raises OptionsError unless the evidence criterion is derived for this optimizer."""
    is_plain = type(optimizer) is keras.optimizers.SGD and not optimizer.momentum
    if not is_plain or replicas > 1:
        kind = type(optimizer).__name__
        raise OptionsError(
            "--stop uses evidence, which is derived for plain SGD on one device (Mahsereci et al. "
            f"2017); the run trains with {kind}{' and momentum' if kind == 'SGD' else ''} on "
            f"{replicas} device(s). Use --optimizer=sgd, or another criterion."
        )
