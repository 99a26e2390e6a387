"""Makes the formats that come from the network's SavedModel, in a process of its own.

    python -m kerastrain.export.formats.making STAGE litert onnx …

Converters print at length, and some end the process for a model that they do not
understand: neither may happen to the trainer. For each format STAGE/making-NAME.json is
written: {} or {"problems": [why it cannot be made]}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kerastrain.export.formats.catalog import Format
from kerastrain.export.formats.processes import do_step
from kerastrain.export.formats.stage import Stage

STEP = "making"


def make(stage: Stage, one: Format) -> dict[str, Any]:
    """Writes the format's file into STAGE/made; says why when it cannot."""
    if stage.texts:
        return {
            "problems": [
                f"it takes no text, and the model's input '{stage.texts[0]}' is text. Put the "
                "look-ups into an encoder (Data(encoder=…)): the network behind it can be made."
            ]
        }
    path = stage.made / one.file
    try:
        _convert(stage, one, path)
    except Exception as error:  # whatever a converter makes of a model that it does not know
        return {"problems": [f"it cannot be made: {said(error)}"]}
    return {}


def _convert(stage: Stage, one: Format, path: Path) -> None:
    if one.runtime == "litert":
        from kerastrain.export.formats import litert

        litert.make(stage, one.name, path)
    elif one.runtime == "onnx":
        from kerastrain.export.formats import onnx

        onnx.make(stage, path)
    else:
        from kerastrain.export.formats import openvino

        openvino.make(stage, path)


def said(error: BaseException) -> str:
    """An error's kind and first lines: converters tell whole call stacks, Keras whole models."""
    innermost = str(error).rpartition("Exception encountered: ")[2].partition("Full object")[0]
    lines = [line.strip() for line in innermost.splitlines() if line.strip()]
    text = " ".join(lines[:3])
    return f"{type(error).__name__}: {text[:400]}{'…' if len(text) > 400 or lines[3:] else ''}"


if __name__ == "__main__":
    do_step(STEP, make)
