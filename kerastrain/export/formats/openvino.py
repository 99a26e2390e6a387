"""OpenVINO's intermediate representation; asked by OpenVINO on the CPU.

make(stage, folder / "openvino" / "model.xml")     # and model.bin beside it
answers = ask(path)(arrays)
"""

from __future__ import annotations

from pathlib import Path

from kerastrain.export.formats.litert import Answer
from kerastrain.export.formats.stage import Stage
from kerastrain.workdir import without_patterns


def make(stage: Stage, path: Path) -> None:
    """Writes both files. Raises whatever OpenVINO raises for what it cannot convert."""
    import openvino

    with without_patterns(stage.network) as network:
        model = openvino.convert_model(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    # By itself it would round the weights to float16.
    openvino.save_model(model, str(path), compress_to_fp16=False)


def ask(path: Path) -> Answer:
    """Compiles the model for the CPU, in float32 also where that has faster half precision."""
    import openvino

    core = openvino.Core()
    model = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda arrays: {
        name: values for output, values in model(dict(arrays)).items() for name in output.names
    }
