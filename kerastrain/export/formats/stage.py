"""A folder with all that the formats of one model are made from and compared with.

    write_stage(folder, served, rows, sample=rows_for_calibration, tolerance=1e-5)
    stage = Stage.read(folder)          # in another process, without TensorFlow
    stage.asked, stage.expected         # the network's inputs and answers for the rows

    FOLDER/network/     a SavedModel of the network with numeric inputs and numeric answers
    FOLDER/stage.json   names, shapes, tolerance
    FOLDER/*.npz        rows asked, answers expected, rows for calibration
    FOLDER/made/        the formats' files, before they are known to be right

What the network takes are the encoder's `numbers` and `categories`, or raw rows where there
is no encoder. Its answers are the head's without the label, which may be text: it is the class
at the largest probability.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.errors import ExportError
from kerastrain.export.comparison import storable

if TYPE_CHECKING:
    from kerastrain.export.rows import Rows
    from kerastrain.export.serving import ServedModel

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Stage:
    """What was written down of one model.

    Attributes:
        takes: "raw rows" or "features".
        inputs: name -> {"dtype", "shape"} of the network's inputs, as the formats name them.
        own_names: of these, as Keras's network has them.
        is_named: Keras's network is called with a dict and not with one array.
        asked: {input: array [n, ...]}: real rows.
        expected: {answer: array [n, ...]}: the live model's named, numeric answers to them.
        raw: the live network's own outputs, in the order of `keras.tree.flatten`.
        batch_size: rows asked about at once.
        raw_name: what the only one of them is: "logits", "probabilities", …
        sample: {input: array [m, ...]}: real rows by which activations are measured.
        tolerance: of float32 formats.
    """

    folder: Path
    takes: str
    inputs: Mapping[str, Mapping[str, Any]]
    own_names: Mapping[str, str]
    is_named: bool
    asked: Arrays
    expected: Arrays
    raw: tuple[np.ndarray, ...]
    batch_size: int
    raw_name: str
    sample: Arrays
    tolerance: float

    @property
    def network(self) -> Path:
        return self.folder / "network"

    @property
    def made(self) -> Path:
        return self.folder / "made"

    @property
    def texts(self) -> list[str]:
        """Inputs that are text, which only Keras's formats take."""
        return [name for name, one in self.inputs.items() if one["dtype"] == "string"]

    @classmethod
    def read(cls, folder: Path) -> Stage:
        plan = json.loads((folder / "stage.json").read_text())
        answers, outputs = plan.pop("answers"), plan.pop("outputs")
        raw = _load(folder / "raw.npz", map(str, range(outputs)))
        return cls(
            folder=folder,
            asked=_load(folder / "asked.npz", plan["inputs"]),
            expected=_load(folder / "expected.npz", answers),
            sample=_load(folder / "sample.npz", plan["inputs"]),
            raw=tuple(raw.values()),
            **plan,
        )


def write_stage(
    folder: Path,
    served: ServedModel,
    rows: Rows,
    *,
    sample: Rows,
    tolerance: float,
) -> Stage:
    """Writes everything down, from the live model.

    Args:
        rows: real ones, as clients send them; the live model is asked about them.
        sample: rows as the network takes them, under the names in `asked`, for the calibration
            of 8-bit formats.

    Raises:
        ExportError: TensorFlow cannot save the network.
    """
    import keras

    (folder / "made").mkdir(parents=True)
    asked = _network_inputs(served, rows)
    outputs = served.raw_outputs(rows)
    raw = [
        np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")))
        for output in keras.tree.flatten(outputs)
    ]
    answers = served.named(outputs)
    expected = {n: a for n, a in answers.items() if n != "label" and a.dtype.kind in "biuf"}
    specs = _specs(served)
    sampled = {name: array.astype(asked[name].dtype) for name, array in sample.items()}
    plan = {
        "takes": "raw rows" if served.encoder is None else "features",
        "inputs": {
            name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
            for name, spec in specs.items()
        },
        "own_names": {name: name for name in specs} | _own_names(served),
        "is_named": _is_named(served),
        "answers": list(expected),
        "outputs": len(raw),
        "batch_size": served.at_once,
        "raw_name": _raw_name(served),
        "tolerance": tolerance,
    }
    _save(folder / "asked.npz", {name: asked[name] for name in specs})
    _save(folder / "expected.npz", expected)
    _save(folder / "raw.npz", {str(place): array for place, array in enumerate(raw)})
    _save(folder / "sample.npz", {name: sampled[name] for name in specs})
    (folder / "stage.json").write_text(json.dumps(plan))
    stage = Stage.read(folder)
    if not stage.texts:
        _save_network(served, specs, list(expected), stage.network)
    return stage


def _is_named(served: ServedModel) -> bool:
    if served.encoder is None:
        return served.takes_named_inputs
    return isinstance(served.encoder.output, dict)


def _raw_name(served: ServedModel) -> str:
    from kerastrain.data.source import Classification

    if isinstance(served.task, Classification):
        return "logits" if served.head.gives_logits else "probabilities"
    return "output" if served.task is None else "prediction"


def _network_inputs(served: ServedModel, rows: Rows) -> dict[str, np.ndarray]:
    import tensorflow as tf

    from kerastrain.export.rows import as_tensors

    with tf.device("CPU"):
        tensors = as_tensors({name: rows[name] for name in served.inputs}, served.inputs)
        if served.encoder is not None:
            encoded = served.encode(tensors)
            return {name: tensor.numpy() for name, tensor in encoded.items()}
    named = _names(served)
    return {named[name]: tensor.numpy() for name, tensor in tensors.items()}


def _names(served: ServedModel) -> dict[str, str]:
    """Each raw input's name in the formats: its own, wherever TensorFlow keeps it."""
    from kerastrain.export.naming import traced_names

    return traced_names(served.inputs)


def _own_names(served: ServedModel) -> dict[str, str]:
    """The opposite of `_names`; empty behind an encoder, which names what it gives."""
    return {} if served.encoder else {new: name for name, new in _names(served).items()}


def _specs(served: ServedModel) -> dict[str, Any]:
    """The network's inputs as TensorSpecs with any batch size."""
    import tensorflow as tf

    from kerastrain.export.signatures import feature_specs

    if served.encoder is None:
        named, specs = _names(served), served.inputs
        return {
            named[name]: tf.TensorSpec(spec.shape, spec.dtype, name=named[name])
            for name, spec in specs.items()
        }
    return feature_specs(served.encoder)


def _save_network(
    served: ServedModel, specs: Mapping[str, Any], answers: list[str], folder: Path
) -> None:
    import tensorflow as tf

    from kerastrain.export.quiet import quiet_tensorflow
    from kerastrain.export.serving import portable_layers

    own = _own_names(served)

    def answer(inputs: Mapping[str, Any]) -> dict[str, Any]:
        named = {own.get(name, name): inputs[name] for name in specs}
        outputs = served.ask_network(named) if served.encoder else served.call(named)
        given = served.head.answers(outputs)
        return {name: given[name] for name in answers}

    try:
        with portable_layers(served.model), _plain_additions(), quiet_tensorflow():
            made = tf.function(answer, input_signature=[dict(specs)], autograph=False)
            concrete = made.get_concrete_function()
            module = tf.Module()
            module.variables_read = [v.value for v in served.model.variables]
            tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    except (ValueError, TypeError, AssertionError, tf.errors.OpError) as error:
        raise ExportError(
            f"The network cannot be saved with numeric inputs and answers: {error}"
        ) from error


@contextlib.contextmanager
def _plain_additions() -> Iterator[None]:
    """Inside, additions that LiteRT has no kernel for are traced as what they are.

    Keras makes tf.nn.bias_add of every sum that looks like one: also of whole numbers, and of
    vectors along another dimension than the last.
    """
    import tensorflow as tf

    bias_add = tf.nn.bias_add

    def add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
        is_last = not str(data_format or "").startswith("NC")
        if value.dtype.is_floating and is_last:
            return bias_add(value, bias, data_format=data_format, name=name)
        if not is_last:
            bias = tf.reshape(bias, [-1] + [1] * (value.shape.rank - 2))
        return tf.add(value, bias)

    tf.nn.bias_add = add
    try:
        yield
    finally:
        tf.nn.bias_add = bias_add


def _save(path: Path, arrays: Arrays) -> None:
    numbered: dict[str, Any] = {str(i): storable(a) for i, a in enumerate(arrays.values())}
    np.savez(path, **numbered)


def _load(path: Path, names: Any) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[str(place)] for place, name in enumerate(names)}
