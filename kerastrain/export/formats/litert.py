"""LiteRT (formerly TensorFlow Lite): float32, float16 weights, 8-bit weights, 8 bits throughout.

    make(stage, "litert_int8", path)      # by TensorFlow's converter
    answers = ask(path)(arrays)           # by LiteRT's interpreter, on the CPU

All four take and give the same arrays: an 8-bit model quantises its inputs and its answers
itself. The file's one signature is "serving_default", with named inputs and outputs and a
batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerastrain.export.formats.stage import Stage
from kerastrain.workdir import without_patterns

Answer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def make(stage: Stage, name: str, path: Path) -> None:
    """Writes the file. Raises whatever the converter raises for what it cannot convert."""
    import tensorflow as tf

    with without_patterns(stage.network) as network:
        converter = tf.lite.TFLiteConverter.from_saved_model(network)
        if name != "litert":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "litert_float16":
            converter.target_spec.supported_types = [tf.float16]
        if name == "litert_int8":
            converter.representative_dataset = lambda: _single_rows(stage.sample)
            # Without float kernels to fall back on: what has no 8-bit kernel is an error.
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())


def _single_rows(sample: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for row in range(len(next(iter(sample.values())))):
        yield {name: array[row : row + 1] for name, array in sample.items()}


def ask(path: Path) -> Answer:
    """Loads the file into the interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(str(path))
    run = interpreter.get_signature_runner("serving_default")
    return lambda arrays: dict(run(**arrays))
