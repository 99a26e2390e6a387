"""ONNX, by tf2onnx; asked by ONNX Runtime on the CPU.

make(stage, path)
answers = ask(path)(arrays)
"""

from __future__ import annotations

from pathlib import Path

from kerastrain.export.formats.litert import Answer
from kerastrain.export.formats.stage import Stage

# What ONNX Runtime has known since 2023, and tf2onnx writes.
OPSET = 18


def make(stage: Stage, path: Path) -> None:
    """Writes the file. Raises whatever tf2onnx raises for what it cannot convert."""
    import tensorflow as tf
    import tf2onnx

    from kerastrain.export.loading import load_saved_model

    loaded = load_saved_model(stage.network)
    answer = loaded.signatures["serving_default"]
    specs = [
        tf.TensorSpec(one["shape"], one["dtype"], name=name) for name, one in stage.inputs.items()
    ]

    # tf2onnx takes inputs by position and names them by their specs.
    @tf.function(input_signature=specs)
    def by_position(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(**dict(zip(stage.inputs, arrays, strict=True)))

    tf2onnx.convert.from_function(
        by_position, input_signature=specs, opset=OPSET, output_path=str(path)
    )


def ask(path: Path) -> Answer:
    """Loads the file into ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(None, dict(arrays)), strict=True))
