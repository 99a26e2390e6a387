"""The model as a server sees it: raw rows in, named answers out.

    served = ServedModel.of(model, data)
    served.answers(rows)            # {"probabilities": …}: what must come out of the export
    served.save(folder)             # SavedModel with the signatures of `signatures.py`
    served.save_keras(path)         # one model from raw rows, for Keras

Raw rows are what a client has: the encoder (if any) and the head are inside.
Written by an own tf.Module that holds only what the signatures read: Keras's
`model.export` stores weights twice, leaves augmentation active and names
inputs and outputs by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kerastrain.data.source import Data, Task
from kerastrain.errors import ExportError
from kerastrain.export.heads import Head, choose_head
from kerastrain.export.naming import rewrite_signatures
from kerastrain.export.quiet import quiet_tensorflow
from kerastrain.export.rows import (
    Rows,
    as_array,
    as_tensors,
    first_rows,
    in_batches,
    input_specs,
    raw_rows,
)
from kerastrain.export.seeds import Seeds
from kerastrain.export.signatures import DEFAULT, FEATURES, METHODS, Pixels, endpoint, trace


@dataclass(frozen=True)
class ServedModel:
    """A model with everything between a client's row and a client's answer.

    Attributes:
        inputs: name -> TensorSpec with batch size None, in the order of the columns.
        takes_named_inputs: the model is called with a dict and not with one array.
        pixels: how a PNG becomes its input; None when it takes something else than an image.
        answers_one_number: a row's `prediction` is one number.
        seeds: of the random numbers that it draws when it is asked.
        at_once: rows in a batch that the live model is asked about.
        changing: places, in the order of `keras.tree.flatten`, of outputs that are others at
            each call, whatever its seeds: they are told as NaN.
    """

    model: keras.Model
    encoder: keras.Model | None
    head: Head
    inputs: Mapping[str, tf.TensorSpec]
    takes_named_inputs: bool
    seeds: Seeds
    at_once: int
    changing: frozenset[int] = frozenset()
    pixels: Pixels | None = None
    answers_one_number: bool = False

    @classmethod
    def of(cls, model: keras.Model, data: Data, *, at_once: int = 256) -> ServedModel:
        """Reads inputs off the model and data, and the head off the task or the loss.

        Args:
            at_once: the training's batch size, say: the memory for so many rows is there.

        Raises:
            ExportError: the model cannot be called, or its output does not fit the task.
        """
        inputs = input_specs(model, data)
        is_named = data.encoder is not None or isinstance(data.train.inputs, Mapping)
        seeds = Seeds.of(*([] if data.encoder is None else [data.encoder]), model)
        plain = cls(model, data.encoder, Head(None), inputs, is_named, seeds, at_once)
        rows = first_rows(raw_rows(data, inputs), 64)
        outputs = plain.raw_outputs(rows)
        again = plain.raw_outputs(first_rows(rows, at_once))
        head = choose_head(model, data, outputs)
        prediction = head.answers(outputs).get("prediction")
        return dataclasses.replace(
            plain,
            head=head,
            changing=_changing(again, outputs),
            pixels=Pixels.of(data, inputs),
            answers_one_number=prediction is not None and prediction.shape.rank == 1,
        )

    @property
    def task(self) -> Task | None:
        """What is predicted; from the data, or from the compiled loss when they do not say."""
        return self.head.task

    def raw_outputs(self, rows: Rows, *, seconds: float = math.inf) -> Any:
        """The model's own output for raw rows, as tensors, run eagerly on the CPU.

        Each batch of `at_once` rows draws from the same seeds, which are left as they were.

        Args:
            seconds: when so many are over no further batch is begun, and the output is that of
                the first rows.

        Raises:
            ExportError: the model does not take the rows.
        """
        # On the CPU, because that is where the export is checked: GPUs round
        # float32 products to TF32, and would differ by 1e-3.
        parts, until = [], time.monotonic() + seconds
        try:
            with portable_layers(self.model), tf.device("CPU"):
                for batch in in_batches(rows, self.at_once):
                    tensors = as_tensors(batch, self.inputs)
                    parts.append(self.seeds.asked(functools.partial(self.call, tensors)))
                    if time.monotonic() >= until:
                        break
                if len(parts) > 1:
                    parts = [keras.tree.map_structure(_below_each_other, *parts)]
        except (ValueError, TypeError, tf.errors.OpError) as error:
            count = len(next(iter(rows.values())))
            raise ExportError(f"The model cannot be asked about {count} rows: {error}") from error
        flat = [
            tf.fill(tf.shape(output), np.nan) if place in self.changing else output
            for place, output in enumerate(keras.tree.flatten(parts[0]))
        ]
        return keras.tree.pack_sequence_as(parts[0], flat)

    def answers(self, rows: Rows) -> dict[str, np.ndarray]:
        """What the signature must answer for raw rows, from the live model."""
        return self.named(self.raw_outputs(rows))

    def named(self, outputs: Any) -> dict[str, np.ndarray]:
        """The named answers that the model's own output becomes."""
        with tf.device("CPU"):
            answers = self.head.answers(outputs)
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def call(self, rows: Mapping[str, tf.Tensor]) -> Any:
        """The model's own output for raw rows."""
        if self.encoder is not None:
            return self.ask_network(self.encode(rows))
        inputs: Any = dict(rows)
        if not self.takes_named_inputs:
            (inputs,) = inputs.values()
        return self.model(inputs, training=False)

    def encode(self, rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Raw rows as the encoder gives them to the network, by name."""
        assert self.encoder is not None
        encoded = self.encoder(dict(rows), training=False)
        return encoded if isinstance(encoded, dict) else {FEATURES: encoded}

    def ask_network(self, features: Mapping[str, tf.Tensor]) -> Any:
        """The model's own output for what `encode` gives."""
        inputs: Any = dict(features)
        if self.encoder is not None and not isinstance(self.encoder.output, dict):
            (inputs,) = inputs.values()
        return self.model(inputs, training=False)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the SavedModel; returns its signatures as {name: {"inputs": …, "outputs": …}}.

        Raises:
            ExportError: the model cannot be traced for any batch size, uses XLA
                by force, or holds something that TensorFlow cannot save.
        """
        try:
            with portable_layers(self.model):
                functions, traced = trace(self)
            module = self._module(functions[DEFAULT])
            module.serve = endpoint(self, functions[DEFAULT], traced)
            with quiet_tensorflow():
                tf.saved_model.save(module, str(folder), signatures=functions)
        except (ValueError, TypeError, AssertionError, tf.errors.OpError) as error:
            raise ExportError(f"TensorFlow cannot save the model: {error}") from error
        _refuse_xla(folder)
        rewrite_signatures(folder, traced, METHODS)
        own = {replacement: name for name, replacement in traced.items()}
        return {name: _described(function, own) for name, function in functions.items()}

    def _module(self, concrete: Any) -> tf.Module:
        """Holds what the function reads, each once: weights, look-up tables."""
        layers = [layer for part in self._parts() for layer in _layers(part)]
        read = {id(tensor) for tensor in concrete.captured_inputs}
        own = [v.value for part in self._parts() for v in part.variables]
        # A layer may also read a tf.Variable that Keras does not know.
        variables = {id(v.handle): v for v in [*own, *concrete.graph.variables]}
        module = tf.Module()
        # Seeds of dropout and augmentation are not read without training, so they stay behind.
        module.weights = [v for handle, v in variables.items() if handle in read]
        module.tables = [
            value
            for layer in layers
            for value in vars(layer).values()
            if isinstance(value, tf.saved_model.experimental.TrackableResource)
        ]
        return module

    def _parts(self) -> list[keras.Model]:
        return [self.model] if self.encoder is None else [self.encoder, self.model]

    def save_keras(self, path: Path) -> None:
        """Writes the model from raw rows to its own output, without optimizer, as `.keras`.

        Raises whatever Keras raises for a model that it cannot save.
        """
        with uncompiled(self.model):
            self.keras_model().save(path)

    @property
    def network(self) -> keras.Model:
        """The model as Keras's files hold it.

        A class that only training needs can have a method `without_own_classes()`, which gives
        a model of the same layers that answers as it does and needs no class but Keras's.
        """
        form = getattr(self.model, "without_own_classes", None)
        return self.model if form is None else form()

    def keras_model(self) -> keras.Model:
        """From raw rows to the model's own output."""
        if self.encoder is None:
            return self.network
        rows = {
            tensor.name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)
            for tensor in self.encoder.inputs
        }
        outputs = self.network(self.encoder(rows))
        return keras.Model(rows, outputs, name=f"{self.model.name}_from_raw_rows")


def _below_each_other(*outputs: Any) -> Any:
    """Of all batches; of an output that has no rows, which cannot be exported, the first."""
    return tf.concat(outputs, 0) if outputs[0].shape.rank else outputs[0]


def _changing(again: Any, outputs: Any) -> frozenset[int]:
    """Places of outputs whose first rows are others when they are asked again."""
    pairs = zip(keras.tree.flatten(again), keras.tree.flatten(outputs), strict=True)
    arrays = [[np.atleast_1d(as_array(output)) for output in pair] for pair in pairs]
    return frozenset(
        place
        for place, (second, first) in enumerate(arrays)
        if not _is_close(second, first[: len(second)])
    )


def _is_close(second: np.ndarray, first: np.ndarray) -> bool:
    if first.dtype.kind != "f":
        return np.array_equal(first, second)
    if not np.isfinite(first).all():
        return True  # That is refused as such.
    return np.allclose(second, first, rtol=1e-5, atol=1e-5 * np.abs(first).max(initial=0.0))


def _described(function: Any, own: Mapping[str, str]) -> dict[str, Any]:
    """{"inputs": …, "outputs": …} of a signature, its inputs under their own names."""
    specs = function.structured_input_signature[0][0]
    inputs = {own.get(name, name): spec for name, spec in specs.items()}
    return {"inputs": _shown(inputs), "outputs": _shown(function.structured_outputs)}


def _shown(specs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
        for name, spec in sorted(specs.items())
    }


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=True, recursive=True))


def _refuse_xla(folder: Path) -> None:
    """TensorFlow Serving has no XLA: a function compiled by force fails there, at each request."""
    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    for function in graph.library.function:
        if function.attr["_XlaMustCompile"].b:
            raise ExportError(
                f"The function '{function.signature.name}' of the model is marked "
                "jit_compile=True, which TensorFlow Serving cannot run. Take jit_compile out of "
                "that tf.function; model.compile(jit_compile=True) does no harm."
            )


@contextlib.contextmanager
def portable_layers(model: keras.Model) -> Iterator[None]:
    """Recurrent layers would be traced into cuDNN's operations on a machine with a GPU."""
    chosen = [(layer, layer.use_cudnn) for layer in _layers(model) if hasattr(layer, "use_cudnn")]
    try:
        for layer, _ in chosen:
            layer.use_cudnn = False
        yield
    finally:
        for layer, value in chosen:
            layer.use_cudnn = value


@contextlib.contextmanager
def uncompiled(model: keras.Model) -> Iterator[None]:
    """Keras would save the optimizer too: for Adam, three times the size, and classes to find."""
    if not model.compiled:
        yield
        return
    compiled, optimizer = model.compiled, model.optimizer
    try:
        model.compiled, model.optimizer = False, None
        yield
    finally:
        model.compiled, model.optimizer = compiled, optimizer
