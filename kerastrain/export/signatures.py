"""The signatures of an exported SavedModel: how it can be asked.

    functions = trace(served)                   # {"serving_default": ConcreteFunction, …}
    requests = sample_requests(served, rows, answers)   # the rows as each signature takes them

| signature         | takes                                             | answers                |
| ----------------- | ------------------------------------------------- | ---------------------- |
| `serving_default` | raw rows: named columns, or images                | the head's             |
| `features`        | rows after the encoder: `numbers`, `categories`   | the same               |
| `image_bytes`     | `image_bytes` string [batch]: PNG or JPEG         | the same               |
| `classify`        | `inputs` string [batch]: tf.train.Example         | `classes`, `scores`    |
| `regress`         | `inputs` string [batch]: tf.train.Example         | `outputs`              |

The last two are TensorFlow Serving's Classify and Regress. `endpoint` is for Keras's
TFSMLayer, which finds it as the attribute `serve`. The network is traced once; every
other signature calls that function. A signature that a model cannot have is not there: no
`image_bytes` for tables, no `classify` for numbers, none on Examples for rows of any length.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import ExportError
from kerastrain.export.naming import traced_names
from kerastrain.export.rows import Rows, as_tensor, as_tensors

if TYPE_CHECKING:
    from kerastrain.export.serving import ServedModel

DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
# Also the name of what an encoder gives when it gives one tensor.
FEATURES = "features"
# As TensorFlow Serving names what may be asked by which of its services.
METHODS = {
    "classify": tf.saved_model.CLASSIFY_METHOD_NAME,
    "regress": tf.saved_model.REGRESS_METHOD_NAME,
}
EXAMPLES = tf.saved_model.CLASSIFY_INPUTS
IMAGE_BYTES = "image_bytes"
# Looked at for their range, where not all are in memory.
STORED_IMAGES = 5000


@dataclass(frozen=True)
class Pixels:
    """Images that a PNG or JPEG can be made into.

    Attributes:
        height, width, channels: 1 or 3 channels.
        brightest: what a byte of 255 becomes: the largest value among the training images (of
            those on disk: among some thousands of them).
    """

    height: int
    width: int
    channels: int
    brightest: float

    @classmethod
    def of(cls, data: Data, inputs: Mapping[str, tf.TensorSpec]) -> Pixels | None:
        """Those of a model that takes one image; None when its input is something else.

        Images that reach below zero, standardised ones for instance, have no black to begin at.
        """
        if data.encoder is not None or len(inputs) != 1 or isinstance(data.train.inputs, Mapping):
            return None
        shape = next(iter(inputs.values())).shape[1:].as_list()
        channels = shape[2] if len(shape) == 3 else 1
        if len(shape) not in (2, 3) or None in shape or channels not in (1, 3):
            return None
        if data.train.inputs.dtype.kind not in "uif":
            return None
        darkest, largest = _range(data.train)
        if darkest < 0 or largest <= 0:
            return None
        return cls(shape[0], shape[1], channels, _brightest(largest))

    def from_bytes(self, contents: tf.Tensor) -> tf.Tensor:
        """PNG or JPEG, string [batch], as float32 [batch, height, width, channels].

        Resized where need be (bilinear, antialiased).
        """
        shape = [self.height, self.width, self.channels]

        def decode(content: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(content, channels=self.channels, expand_animations=False)
            image.set_shape([None, None, self.channels])
            return tf.image.resize(image, shape[:2], antialias=True)

        images = tf.map_fn(decode, contents, fn_output_signature=tf.TensorSpec(shape, tf.float32))
        return images * (self.brightest / 255)

    def to_bytes(self, images: np.ndarray) -> np.ndarray:
        """Images in the data's own units as PNG, object [n] of bytes; rounded to 256 steps."""
        steps = np.clip(np.rint(images.astype(np.float64) * (255 / self.brightest)), 0, 255)
        steps = steps.astype(np.uint8).reshape(-1, self.height, self.width, self.channels)
        return np.array([tf.io.encode_png(image).numpy() for image in steps], object)


def _range(images: Examples | StoredExamples) -> tuple[float, float]:
    """The least and the largest value; of images on disk by some thousands of them."""
    values = images.inputs
    if not isinstance(images, Examples):
        chosen = np.unique(np.linspace(0, len(images) - 1, STORED_IMAGES).astype(np.int64))
        values = images.take(chosen).inputs
    assert isinstance(values, np.ndarray)
    return float(values.min()), float(values.max())


def _brightest(largest: float) -> float:
    """255 for bytes and 1 for shares, even when no training image has quite that much."""
    if largest <= 1:
        return 1.0
    return 255.0 if 127 < largest <= 255 else largest


def trace(served: ServedModel) -> tuple[dict[str, Any], dict[str, str]]:
    """A concrete function for each signature, and the name of each raw input in them.

    Raises:
        ExportError: the model answers with a fixed batch size, or an input cannot be named.
    """
    traced = traced_names(served.inputs)
    specs = {traced[name]: _named(spec, traced[name]) for name, spec in served.inputs.items()}
    answer = None if served.encoder is None else _traced_network(served, served.encoder)

    def serve(rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        named = {name: rows[traced[name]] for name in served.inputs}
        if answer is None:
            return served.head.answers(served.call(named))
        return answer(served.encode(named))

    default = _concrete(serve, specs)
    _check_batch(default.structured_outputs)
    functions = {DEFAULT: default} if answer is None else {DEFAULT: default, FEATURES: answer}

    def ask(rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return default({traced[name]: tensor for name, tensor in rows.items()})

    if served.pixels is not None:
        functions[IMAGE_BYTES] = _traced_images(served, served.pixels, ask)
    if features := example_features(served):
        functions |= _traced_examples(served, features, ask)
    return functions, traced


def _concrete(function: Any, specs: Mapping[str, tf.TensorSpec]) -> Any:
    return _function(function, dict(specs)).get_concrete_function()


def _function(function: Any, specs: Any) -> Any:
    # autograph=False as in Keras's own export: layers are called as they are in training.
    return tf.function(function, input_signature=[specs], autograph=False)


def endpoint(served: ServedModel, default: Any, traced: Mapping[str, str]) -> Any:
    """`serving_default` as keras.layers.TFSMLayer calls it: with one array, or a dict of them."""
    specs: Any = {name: _named(spec, traced[name]) for name, spec in served.inputs.items()}
    if not served.takes_named_inputs:
        ((name, specs),) = specs.items()
        return _function(lambda array: default({traced[name]: array}), specs)
    return _function(lambda rows: default({traced[name]: rows[name] for name in traced}), specs)


def _named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name=name)


def _traced_network(served: ServedModel, encoder: keras.Model) -> Any:
    """The network and head behind the encoder: features in, answers out."""
    return _concrete(
        lambda features: served.head.answers(served.ask_network(features)), feature_specs(encoder)
    )


def feature_specs(encoder: keras.Model) -> dict[str, tf.TensorSpec]:
    """What the encoder gives to the network, by name; [batch, …], a batch of any size."""
    encoded = encoder.output if isinstance(encoder.output, dict) else {FEATURES: encoder.output}
    return {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in encoded.items()
    }


def _check_batch(outputs: Mapping[str, tf.TensorSpec]) -> None:
    for name, output in outputs.items():
        if output.shape.rank == 0 or (output.shape.rank and output.shape[0] is not None):
            raise ExportError(
                f"The output '{name}' has shape {output.shape}; its first dimension has to "
                "be the batch, of any size. Is an Input made with batch_size=…?"
            )


def _traced_images(served: ServedModel, pixels: Pixels, ask: Any) -> Any:
    name, spec = next(iter(served.inputs.items()))

    def serve(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return ask({name: _fitted(pixels.from_bytes(request[IMAGE_BYTES]), spec)})

    return _concrete(serve, {IMAGE_BYTES: tf.TensorSpec([None], tf.string, IMAGE_BYTES)})


def _fitted(images: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Images [batch, height, width, channels] in the shape and dtype of the model's input."""
    images = tf.reshape(images, [-1, *spec.shape[1:]])
    return tf.cast(images if spec.dtype.is_floating else tf.round(images), spec.dtype)


def example_features(served: ServedModel) -> dict[str, tf.io.FixedLenFeature]:
    """How a tf.train.Example holds a raw row; empty when none can, as one with a column in
    float64, which it would round.

    A number or text that an Example of a table lacks is a missing value; other inputs must
    be there.
    """
    features = {}
    for name, spec in served.inputs.items():
        kind = _example_dtype(spec.dtype)
        shape = spec.shape[1:]
        is_rounded = served.encoder is not None and spec.dtype == tf.float64
        if kind is None or is_rounded or not shape.is_fully_defined():
            return {}
        missing = None
        if served.encoder is not None:
            missing = "" if kind == tf.string else np.nan if kind == tf.float32 else None
        if missing is not None and shape.rank:
            missing = np.full(shape.as_list(), missing).tolist()
        features[name] = tf.io.FixedLenFeature(shape.as_list(), kind, missing)
    return features


def _example_dtype(dtype: tf.DType) -> tf.DType | None:
    """Examples know bytes, float32 and int64."""
    if dtype == tf.string or dtype.is_floating:
        return tf.string if dtype == tf.string else tf.float32
    return tf.int64 if (dtype.is_integer or dtype.is_bool) and dtype != tf.uint64 else None


def _traced_examples(served: ServedModel, features: Mapping[str, Any], ask: Any) -> dict[str, Any]:
    def parsed(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rows = tf.io.parse_example(request[EXAMPLES], dict(features))
        return ask({name: _ranged(rows[name], spec) for name, spec in served.inputs.items()})

    specs = {EXAMPLES: tf.TensorSpec([None], tf.string, EXAMPLES)}
    answer = example_answers(served)
    if answer is None:
        return {}
    method, convert = answer
    return {method: _concrete(lambda request: convert(parsed(request)), specs)}


def _ranged(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """In the input's dtype; an integer that it cannot hold is an error and not another number."""
    if spec.dtype.is_integer and spec.dtype != tf.int64:
        low, high = spec.dtype.limits
        text = f"'{spec.name}' takes {spec.dtype.name}: {low} to {high}."
        fits = tf.reduce_all((values >= low) & (values <= high))
        with tf.control_dependencies([tf.debugging.Assert(fits, [text])]):
            return tf.cast(values, spec.dtype)
    return tf.cast(values, spec.dtype) if values.dtype != spec.dtype else values


def example_answers(served: ServedModel) -> tuple[str, Any] | None:
    """ "classify" or "regress", and how its answers are made of the head's; None: neither."""
    task = served.task
    if isinstance(task, Classification):
        return "classify", functools.partial(_classify, tuple(map(str, task.classes)))
    if isinstance(task, Regression) and served.answers_one_number:
        # TensorFlow Serving's regressions are float32.
        return "regress", lambda a: {"outputs": tf.cast(a["prediction"], tf.float32)}
    return None


def _classify(names: tuple[str, ...], answers: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    scores = answers["probabilities"]
    classes = tf.tile(tf.constant([names]), [tf.shape(scores)[0], 1])
    return {"classes": classes, "scores": scores}


def sample_requests(
    served: ServedModel, rows: Rows, answers: Mapping[str, np.ndarray]
) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The rows as each further signature takes them, and what the live model answers.

    Args:
        answers: the live model's to these rows.

    Returns:
        signature -> ({input: array [n, ...]}, {output: array [n, ...]}).
    """
    requests: dict[str, Any] = {}
    if served.encoder is not None:
        with tf.device("CPU"):
            encoded = served.encode(as_tensors(rows, served.inputs))
        requests[FEATURES] = ({n: tensor.numpy() for n, tensor in encoded.items()}, answers)
    if served.pixels is not None:
        requests[IMAGE_BYTES] = _image_request(served, served.pixels, rows, answers)
    method = example_answers(served)
    if method is not None and example_features(served):
        name, convert = method
        wanted = {n: v.numpy() for n, v in convert(as_plain_tensors(answers)).items()}
        requests[name] = ({EXAMPLES: as_examples(served, rows)}, wanted)
    return requests


def _image_request(
    served: ServedModel, pixels: Pixels, rows: Rows, answers: Mapping[str, np.ndarray]
) -> tuple[Any, Any]:
    name, spec = next(iter(served.inputs.items()))
    contents = pixels.to_bytes(rows[name])
    # What is left of them after their rounding to bytes is what the model is asked about.
    with tf.device("CPU"):
        left = _fitted(pixels.from_bytes(tf.constant(contents.tolist())), spec).numpy()
    is_exact = np.array_equal(left, rows[name].reshape(left.shape))
    return {IMAGE_BYTES: contents}, answers if is_exact else served.answers({name: left})


def as_plain_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Arrays as tensors; texts as strings."""
    return {
        name: as_tensor(array, tf.string) if array.dtype.kind in "OSU" else tf.constant(array)
        for name, array in arrays.items()
    }


def as_examples(served: ServedModel, rows: Rows) -> np.ndarray:
    """Raw rows as serialized tf.train.Example, object [n] of bytes."""
    features = example_features(served)
    columns = {name: as_tensor(rows[name], served.inputs[name].dtype).numpy() for name in features}
    count = len(next(iter(columns.values())))
    examples = []
    for row in range(count):
        example = tf.train.Example()
        for name, feature in features.items():
            values = columns[name][row].reshape(-1) if feature.shape else [columns[name][row]]
            _add(example.features.feature[name], feature.dtype, values)
        examples.append(example.SerializeToString(deterministic=True))
    return np.array(examples, object)


def _add(feature: tf.train.Feature, dtype: tf.DType, values: Any) -> None:
    if dtype == tf.string:
        feature.bytes_list.value.extend(values)
    elif dtype == tf.float32:
        feature.float_list.value.extend(map(float, values))
    else:
        feature.int64_list.value.extend(map(int, values))
