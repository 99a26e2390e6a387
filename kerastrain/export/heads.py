"""What a model's own output means, and the named answers it becomes.

    head = choose_head(model, data, outputs)     # `outputs`: the model's, for a few rows
    head.answers(outputs)   # {"probabilities": …, "logits": …, "label": …}

The data's task decides; a model of the user's own without one is judged by its
compiled loss. Whether it gives logits or probabilities is the loss's
`from_logits`, the one place where Keras records it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Regression, Task
from kerastrain.errors import ExportError

# Losses of exclusive classes, and of yes or no; without "_" so that both
# "binary_crossentropy" and "BinaryCrossentropy" are found.
CATEGORICAL = {
    "sparsecategoricalcrossentropy",
    "categoricalcrossentropy",
    "categoricalfocalcrossentropy",
}
BINARY = {"binarycrossentropy", "binaryfocalcrossentropy"}


@dataclass(frozen=True)
class Head:
    """Turns the model's own output into the answers of the signature.

    Attributes:
        task: what is predicted; None: outputs go out under their own names.
        gives_logits: the model's output is logits and not probabilities.
        names: the names of the outputs, in the order of `keras.tree.flatten`,
            when there is no task.
    """

    task: Task | None
    gives_logits: bool = False
    names: tuple[str, ...] = ()

    def answers(self, outputs: Any) -> dict[str, tf.Tensor]:
        """The named answers, [batch, ...]; floating point is float32, but float64 for numbers
        in whose units the model answers so (`EncodedColumns.target_dtype`).

        Classification: `probabilities` float32 [batch, classes], `logits` the
        same shape (only when the model gives them), `label` int64 or string [batch].
        Regression: `prediction` float32 [batch], or [batch, d] for d > 1 numbers; with
        quantiles `quantiles` float32 [batch, q], rising, and as `prediction` the one nearest
        to the median.
        """
        tensors = [tf.convert_to_tensor(output) for output in keras.tree.flatten(outputs)]
        if not (isinstance(self.task, Regression) and tensors[0].dtype == tf.float64):
            tensors = [_as_float32(tensor) for tensor in tensors]
        if isinstance(self.task, Classification):
            return self._classified(tensors[0], self.task)
        if isinstance(self.task, Regression):
            if self.task.quantiles:
                return self._quantiles(tensors[0], self.task.quantiles)
            is_column = tensors[0].shape.rank == 2 and tensors[0].shape[-1] == 1
            return {"prediction": tf.squeeze(tensors[0], -1) if is_column else tensors[0]}
        return dict(zip(self.names, tensors, strict=True))

    @staticmethod
    def _quantiles(output: tf.Tensor, levels: tuple[float, ...]) -> dict[str, tf.Tensor]:
        # Learned one by one, quantiles can cross; sorted, they are nowhere worse
        # (Chernozhukov, Fernandez-Val and Galichon 2010).
        rising = tf.sort(output, axis=-1)
        middle = min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))
        return {"prediction": rising[:, middle], "quantiles": rising}

    def _classified(self, output: tf.Tensor, task: Classification) -> dict[str, tf.Tensor]:
        answers = {}
        if output.shape.rank == 1:
            output = output[:, tf.newaxis]
        is_binary = output.shape[-1] == 1
        if self.gives_logits:
            # softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]: a single unit is the second class's.
            logits = tf.concat([tf.zeros_like(output), output], -1) if is_binary else output
            answers["logits"] = logits
            answers["probabilities"] = tf.nn.softmax(logits)
        else:
            probabilities = tf.concat([1 - output, output], -1) if is_binary else output
            answers["probabilities"] = probabilities
        best = tf.argmax(answers["probabilities"], -1)
        answers["label"] = tf.gather(_class_values(task), best)
        return answers


def choose_head(model: keras.Model, data: Data, outputs: Any) -> Head:
    """The head that fits the task and the model.

    Args:
        outputs: what the model answers for some real rows, as NumPy arrays or tensors.

    Raises:
        ExportError: the output does not fit the task, or is not a distribution
            over classes although the loss says so.
    """
    flat = [np.asarray(output) for output in keras.tree.flatten(outputs)]
    task = data.task if data.task is not None else infer_task(model, flat)
    if task is None:
        return Head(None, names=_output_names(model, outputs))
    if len(flat) != 1:
        raise ExportError(
            f"The model has {len(flat)} outputs; {type(task).__name__.lower()} expects one. "
            "Leave the task out (Data(task=None)) to export them under their own names."
        )
    if isinstance(task, Regression):
        _check_quantiles(flat[0], task)
        return Head(task)
    return Head(task, gives_logits=_check_classes(flat[0], task, model))


def _check_quantiles(output: np.ndarray, task: Regression) -> None:
    count = len(task.quantiles)
    if count and output.shape[1:] != (count,):
        raise ExportError(
            f"The model's output has shape [batch, {', '.join(map(str, output.shape[1:]))}]; "
            f"{count} quantiles are to be predicted, so [batch, {count}] is expected."
        )


def infer_task(model: keras.Model, outputs: list[np.ndarray]) -> Classification | None:
    """The task that the compiled loss leaves no doubt about: classes 0 to k-1; else None."""
    loss = _loss_name(compiled_loss(model))
    if len(outputs) != 1 or outputs[0].ndim > 2:
        return None
    units = outputs[0].shape[1] if outputs[0].ndim == 2 else 1
    if loss in CATEGORICAL and units > 1:
        return Classification(tuple(range(units)))
    if loss in BINARY and units == 1:
        return Classification((0, 1))
    return None


def compiled_loss(model: keras.Model) -> Any:
    """The one loss that the model is compiled with: a name, a function, an object; or None."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, dict):
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)):
        loss = loss[0] if len(loss) == 1 else None
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def loss_takes_logits(loss: Any) -> bool | None:
    """Whether the loss says that it is given logits; None when it does not say."""
    if isinstance(loss, functools.partial):
        return bool(loss.keywords.get("from_logits", False))
    if hasattr(loss, "from_logits"):
        return bool(loss.from_logits)
    return False if _loss_name(loss) in CATEGORICAL | BINARY else None


def _loss_name(loss: Any) -> str:
    if isinstance(loss, functools.partial):
        loss = loss.func
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return str(name).replace("_", "").lower()


def _check_classes(output: np.ndarray, task: Classification, model: keras.Model) -> bool:
    """Whether `output` [n, k] holds logits; raises ExportError when it fits no reading."""
    classes = len(task.classes)
    units = output.shape[1] if output.ndim == 2 else 1
    if output.ndim > 2 or not (units == classes or (units == 1 and classes == 2)):
        raise ExportError(
            f"The model's output has shape [batch, {', '.join(map(str, output.shape[1:]))}]; "
            f"{classes} classes are to be predicted, so [batch, {classes}] is expected."
        )
    takes_logits = loss_takes_logits(compiled_loss(model))
    if takes_logits is None:  # a loss of the user's own: the numbers themselves tell
        return not _is_distribution(output)
    if not takes_logits and np.isfinite(output).all() and not _is_distribution(output):
        raise ExportError(
            "The compiled loss takes probabilities (from_logits=False), but the model's outputs "
            f"are none: they reach from {output.min():.4g} to {output.max():.4g}. End the model in "
            "a softmax (or sigmoid), or compile it with the loss's from_logits=True."
        )
    return takes_logits


def _is_distribution(output: np.ndarray) -> bool:
    # Half precision has 8 (bfloat16) to 11 bits; its softmax sums to 1 only that closely.
    slack = 1e-3 if output.dtype in (np.float32, np.float64) else 3e-2
    values = output.astype(np.float64)
    if values.min() < -slack or values.max() > 1 + slack:
        return False
    is_column = values.ndim == 1 or values.shape[1] == 1
    return is_column or bool(np.abs(values.sum(1) - 1).max() <= slack)


def _class_values(task: Classification) -> tf.Tensor:
    if all(isinstance(value, str) for value in task.classes):
        return tf.constant(list(task.classes), tf.string)
    return tf.constant([int(value) for value in task.classes], tf.int64)


def _output_names(model: keras.Model, outputs: Any) -> tuple[str, ...]:
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, dict):
        # keras.tree flattens a dict in the order of its sorted keys.
        names = [str(path[-1]) for path, _ in keras.tree.flatten_with_path(outputs)]
    elif len(flat) == 1:
        names = ["output"]
    else:
        names = list(getattr(model, "output_names", ()))
    if len(set(names)) != len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return tuple(names)


def _as_float32(tensor: tf.Tensor) -> tf.Tensor:
    # TensorFlow Serving's REST cannot answer float16 or bfloat16.
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
