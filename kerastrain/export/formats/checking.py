"""Reloads formats by their own runtimes and compares them, in a fresh process.

    python -m kerastrain.export.formats.checking STAGE onnx …

The process knows nothing but the files. TensorFlow is imported for Keras's formats only:
what runs here without it runs on a device that has none. For each format
STAGE/checking-NAME.json is written: {"problems": […], "error", "error_of", "agreement"}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from kerastrain.export.formats.catalog import Format
from kerastrain.export.formats.comparing import Compared, compare
from kerastrain.export.formats.making import said
from kerastrain.export.formats.processes import do_step
from kerastrain.export.formats.stage import Arrays, Stage
from kerastrain.workdir import strict_json

STEP = "checking"
SMALL_BATCHES = (1, 7)


def check(stage: Stage, one: Format) -> dict[str, Any]:
    """Asks the format about the recorded rows, in batches of several sizes (Keras: in one)."""
    try:
        answer, expected = _loaded(stage, one)
        found = [
            compare(
                _asked(answer, stage.asked, size),
                expected,
                limits=one.limits,
                tolerance=stage.tolerance,
            )
            # Layers called one by one by Keras take milliseconds, whatever the batch.
            for size in (*(SMALL_BATCHES if one.runtime != "keras" else ()), stage.batch_size)
        ]
    except Exception as error:  # whatever a runtime makes of a file that it does not understand
        return {"problems": [f"{one.runtime} cannot load or ask it: {said(error)}"]}
    return strict_json(asdict(_worst(found)))


def _worst(found: list[Compared]) -> Compared:
    broken = [one for one in found if one.problems]
    return broken[0] if broken else max(found, key=lambda one: one.error)


def _loaded(stage: Stage, one: Format) -> tuple[Callable[[Arrays], Any], Arrays]:
    """What is called with arrays, and what it must answer to `stage.asked`."""
    path = stage.made / one.file
    if one.runtime == "keras":
        from kerastrain.export.formats import keras_files

        names = [stage.raw_name] if len(stage.raw) == 1 else list(map(str, range(len(stage.raw))))
        ask = keras_files.ask(stage, one.name, stage.made)
        return lambda arrays: dict(zip(names, ask(arrays).values(), strict=True)), dict(
            zip(names, stage.raw, strict=True)
        )
    if one.runtime == "litert":
        from kerastrain.export.formats import litert

        return litert.ask(path), stage.expected
    if one.runtime == "onnx":
        from kerastrain.export.formats import onnx

        return onnx.ask(path), stage.expected
    from kerastrain.export.formats import openvino

    return openvino.ask(path), stage.expected


def _asked(answer: Callable[[Arrays], Any], rows: Arrays, size: int) -> dict[str, np.ndarray]:
    count = len(next(iter(rows.values())))
    parts = [
        # Contiguous copies: some runtimes read the memory and not the array.
        answer({n: np.ascontiguousarray(a[start : start + size]) for n, a in rows.items()})
        for start in range(0, count, size)
    ]
    # A runtime may lend its own memory, which the next call writes over.
    return {name: np.concatenate([np.array(part[name]) for part in parts]) for name in parts[0]}


if __name__ == "__main__":
    do_step(STEP, check)
