"""Step functions: what one training step does to the state.

    def my_step(state, batch):
        x, y, weights = unpack(batch)
        ...
        return loss

A step is a plain function of the TrainState and one batch, traced by
`tf.function` and run on every replica. It returns the loss, a scalar tensor: the
mean over this replica's examples. Gradient accumulation, mixup, distillation are
step functions of their own; give yours as `Recipe(step=my_step)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from kerastrain.training.state import TrainState

Batch = tuple[Any, ...]
StepFunction = Callable[["TrainState", Batch], tf.Tensor]


def supervised_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """Forward pass, loss of `model.compute_loss`, backward pass, one optimizer update.

    Args:
        state: the run's TrainState.
        batch: (inputs, targets) or (inputs, targets, sample weights).
    """
    x, y, weights = unpack(batch)
    with tf.GradientTape() as tape:
        predictions = state.predict(x, training=True)
        # For R replicas Keras's losses come divided by R, so that gradients add up to the mean's.
        loss = state.model.compute_loss(x, y, predictions, weights, training=True)
        scaled_loss = state.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, state.trainable_values)
    state.apply_gradients(gradients)
    return state.update_metrics(loss, x, y, predictions, weights)


def own_train_step(state: TrainState, batch: Batch) -> tf.Tensor:
    """For a model that defines `train_step` itself: that is the step."""
    logs = state.model.train_step(batch)
    return tf.reduce_mean(tf.cast(logs["loss"], tf.float32)) if "loss" in logs else tf.zeros([])


def default_step(model: keras.Model) -> StepFunction:
    """The model's own `train_step` when its class defines one, else `supervised_step`."""
    overridden = type(model).train_step is not keras.Model.train_step
    return own_train_step if overridden else supervised_step


def unpack(batch: Batch) -> tuple[Any, Any, Any]:
    """(inputs, targets, sample weights or None)."""
    return keras.utils.unpack_x_y_sample_weight(batch)
