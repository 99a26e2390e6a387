"""What ends a network for a table: outputs for its task, loss and metrics.

    model = compiled(inputs, x, options, data)             # x: features [batch, d]
    model = compiled_ensemble(inputs, x, options, data, members=8, hidden=256, layers=2)

Classes: logits [batch, classes]. Numbers: [batch, 1] in the target's own units. Quantiles:
[batch, quantiles].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kerastrain.data.source import Classification, Data, Regression
from kerastrain.networks.ensemble import Average, Ensemble, member_outputs
from kerastrain.optimizers import build_optimizer
from kerastrain.options import TrainOptions

Inputs = Mapping[str, keras.KerasTensor]


def compiled(
    inputs: Inputs, x: keras.KerasTensor, options: TrainOptions, data: Data
) -> keras.Model:
    """The features' last layer, the task's loss and metrics, the optimizer of the options."""
    output = keras.layers.Dense(units(data), dtype="float32", name=_output_name(data))(x)
    return with_output(inputs, output, options, data)


def with_output(
    inputs: Inputs, output: keras.KerasTensor, options: TrainOptions, data: Data
) -> keras.Model:
    """The same for an output float32 [batch, units] that is there already: logits, or numbers
    that are still standardised."""
    model = keras.Model(dict(inputs), _in_units(output, data), name="tabular_model")
    return _compile(model, options, data)


def compiled_ensemble(
    inputs: Inputs,
    x: keras.KerasTensor,
    options: TrainOptions,
    data: Data,
    *,
    members: int,
    hidden: int,
    layers: int,
    dropout: float,
) -> keras.Model:
    """A TabM of these features (`ensemble.member_outputs`)."""
    outputs = member_outputs(
        x, units=units(data), members=members, hidden=hidden, layers=layers, dropout=dropout
    )
    of_members = keras.Model(dict(inputs), _in_units(outputs, data), name="members")
    averages: Average = "probabilities" if isinstance(data.task, Classification) else "numbers"
    model = Ensemble(of_members, averages=averages, name="tabular_model")
    return _compile(model, options, data)


def units(data: Data) -> int:
    """How many outputs the task takes."""
    if isinstance(data.task, Classification):
        return len(data.task.classes)
    return max(1, len(_task(data).quantiles))


@keras.saving.register_keras_serializable("kerastrain")
class PinballLoss(keras.losses.Loss):
    """mean over quantiles q of max(q·(y - ŷ), (q - 1)·(y - ŷ)) (Koenker and Bassett 1978).

    Args:
        quantiles: levels of the columns of the predictions [batch, quantiles].
        scale: predictions and targets [batch, 1] are divided by it.
    """

    def __init__(self, quantiles: tuple[float, ...], *, scale: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.quantiles = tuple(quantiles)
        self.scale = scale

    def call(self, y_true: Any, y_pred: Any) -> Any:
        levels = ops.convert_to_tensor(self.quantiles, dtype=y_pred.dtype)
        missed = (ops.cast(y_true, y_pred.dtype) - y_pred) / self.scale
        return ops.mean(ops.maximum(levels * missed, (levels - 1) * missed), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantiles": self.quantiles, "scale": self.scale}


@keras.saving.register_keras_serializable("kerastrain")
class StandardisedSquaredError(keras.losses.Loss):
    """The mean of ((y - ŷ) / scale)².

    Divided before it is squared: the square of a large number is infinite in float32.
    """

    def __init__(self, scale: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, y_true: Any, y_pred: Any) -> Any:
        missed = (ops.cast(y_true, y_pred.dtype) - y_pred) / self.scale
        return ops.mean(ops.square(missed), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def _task(data: Data) -> Regression:
    assert isinstance(data.task, Regression)
    return data.task


def _output_name(data: Data) -> str:
    return "logits" if isinstance(data.task, Classification) else "standardised"


def _in_units(output: keras.KerasTensor, data: Data) -> keras.KerasTensor:
    """Numbers in the target's own units: learned are standardised ones."""
    if isinstance(data.task, Classification):
        return output
    assert data.columns is not None
    return keras.layers.Rescaling(
        scale=data.columns.target_deviation,
        offset=data.columns.target_mean,
        dtype=data.columns.target_dtype,
        name="prediction",
    )(output)


def _compile(model: keras.Model, options: TrainOptions, data: Data) -> keras.Model:
    how = _classes() if isinstance(data.task, Classification) else _numbers(data)
    optimizer = build_optimizer(options, default=averaging_adam(options, data))
    model.compile(optimizer=optimizer, **how)
    return model


def averaging_adam(options: TrainOptions, data: Data) -> str:
    """Adam with averaged weights, which are what is evaluated and exported: about the mean of
    the last epoch's, of 100 to 1,000 steps.

    The average takes the place of a falling learning rate, and needs no length of the run
    (Polyak and Juditsky 1992; Morales-Brotons, Vogels and Hendrikx 2024).
    """
    size = options.batch_size
    steps = len(data.train) // size if isinstance(size, int) else 1
    return f"adam(use_ema=True, ema_momentum={1 - 1 / min(max(100, steps), 1000):.6g})"


def _classes() -> dict[str, Any]:
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # By --weights, as the metrics of the export are; without weights the same.
        "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def _numbers(data: Data) -> dict[str, Any]:
    """Metrics in the target's units; the loss in its deviations, so that one rate fits."""
    assert data.columns is not None
    deviation, dtype = data.columns.target_deviation, data.columns.target_dtype
    quantiles = _task(data).quantiles
    if quantiles:
        return {"loss": PinballLoss(quantiles, scale=deviation, dtype=dtype)}
    return {
        "loss": StandardisedSquaredError(deviation, dtype=dtype),
        "weighted_metrics": [
            keras.metrics.RootMeanSquaredError(name="rmse", dtype=dtype),
            keras.metrics.MeanAbsoluteError(name="mae", dtype=dtype),
        ],
    }
