"""TabM: an ensemble of perceptrons that share nearly all weights (Gorishniy, Kotelnikov and
Babenko 2025, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling").

    outputs = member_outputs(x, units=2, members=16, hidden=256, layers=2, dropout=0.1)
    model = Ensemble(keras.Model(inputs, outputs), averages="probabilities")

Each member multiplies the inputs and outputs of every dense layer by vectors of its own
(BatchEnsemble, Wen et al. 2020) and has its own biases and its own last layer. Members are
trained each for itself, on the mean of their losses; their mean is what is predicted.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from kerastrain.arguments import COUNT, SHARE_BELOW_1

Average = Literal["probabilities", "numbers"]


def member_outputs(
    x: keras.KerasTensor, *, units: int, members: int, hidden: int, layers: int, dropout: float
) -> keras.KerasTensor:
    """Features [batch, f] to [batch, members, units].

    Raises:
        ArgumentError: a number is out of range.
    """
    for name, value in (("members", members), ("hidden", hidden), ("layers", layers)):
        COUNT.check("The ensemble", name, value)
    SHARE_BELOW_1.check("The ensemble", "dropout", dropout)
    x = keras.layers.RepeatVector(members, name="members")(x)
    for layer in range(layers):
        # Members differ from the first step on by what they see of the inputs; later layers
        # begin alike (as in the paper, section 3.3).
        first = keras.initializers.RandomNormal(stddev=1.0)
        x = _own_factors(x, first if layer == 0 else "ones")
        x = keras.layers.EinsumDense(
            "bki,io->bko", output_shape=(members, hidden), kernel_initializer="he_uniform"
        )(x)
        x = _own_factors(x, "ones", bias=True)
        x = keras.layers.Activation("relu")(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
    return keras.layers.EinsumDense(
        "bki,kio->bko",
        output_shape=(members, units),
        bias_axes="ko",
        kernel_initializer=_uniform(x.shape[-1]),
        dtype="float32",
        name="own_outputs",
    )(x)


def _own_factors(x: keras.KerasTensor, initializer: Any, *, bias: bool = False) -> Any:
    """Each member's features times a vector of its own, [batch, members, f]."""
    return keras.layers.EinsumDense(
        "bki,ki->bki",
        output_shape=tuple(x.shape[1:]),
        kernel_initializer=initializer,
        bias_axes="ki" if bias else None,
    )(x)


def _uniform(inputs: int) -> keras.initializers.Initializer:
    limit = 1 / math.sqrt(inputs)
    return keras.initializers.RandomUniform(-limit, limit)


@keras.saving.register_keras_serializable("kerastrain")
class Ensemble(keras.Model):
    """Members trained each for itself; asked without training, it answers with their mean.

    Args:
        members: inputs to [batch, members, units].
        averages: "probabilities": units are logits, and the answer is the logarithm of the
            members' mean probabilities; "numbers": their mean.
    """

    def __init__(self, members: keras.Model, *, averages: Average, **kwargs: Any):
        super().__init__(**kwargs)
        self.members = members
        self.averages = averages

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = self.members(inputs, training=training)
        return outputs if training else self._mean(outputs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """In training the mean of the members' losses; else the loss of the mean."""
        if len(y_pred.shape) == 3:
            count = y_pred.shape[1]
            y_pred = ops.reshape(y_pred, (-1, y_pred.shape[2]))
            y = ops.repeat(y, count, axis=0)
            if sample_weight is not None:
                sample_weight = ops.repeat(sample_weight, count, axis=0)
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if len(y_pred.shape) == 3:
            y_pred = self._mean(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _mean(self, outputs: Any) -> Any:
        if self.averages == "numbers":
            return ops.mean(outputs, axis=1)
        logarithms = ops.log_softmax(outputs, axis=-1)
        return ops.logsumexp(logarithms, axis=1) - math.log(outputs.shape[1])

    def without_own_classes(self) -> keras.Model:
        """The same layers as a functional model that only answers: what Keras loads by itself."""
        return keras.Model(self.members.input, self._mean(self.members.output), name=self.name)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, _, units = self.members.compute_output_shape(input_shape)
        return (batch, units)

    def get_config(self) -> dict[str, Any]:
        members = keras.saving.serialize_keras_object(self.members)
        return {"members": members, "averages": self.averages, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Ensemble:
        members = keras.saving.deserialize_keras_object(
            config["members"], custom_objects=custom_objects
        )
        return cls(members, averages=config["averages"], name=config["name"])
