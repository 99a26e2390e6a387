"""Does the export answer as the live model does? Asked in a fresh process, before publishing.

    write_check(folder, served, rows, custom_modules={})   # rows and the live model's answers
    with FreshProcess() as process:                        # runs this module
        report = process.check(folder)                     # {"problems": [], …}

A folder under check holds `model/` (the version to be), `rows.npz`,
`expected.npz` and `check.json`. The fresh process knows nothing but these
files: the SavedModel is loaded by TensorFlow alone, `model.keras` by Keras.

It sees no GPU. The trainer holds the memory of those there are, and most
servers have none: an export with operations for GPUs alone must be found here.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.errors import ExportError
from kerastrain.export.comparison import (
    FLOAT32_TOLERANCE,
    HALF_TOLERANCE,
    difference,
    storable,
    ties,
)
from kerastrain.export.naming import signature_inputs
from kerastrain.export.rows import Rows, as_tensor, as_tensors
from kerastrain.export.serving import ServedModel

BATCH_SIZES = (1, 7, 256)


def write_check(
    folder: Path, served: ServedModel, rows: Rows, *, custom_modules: Mapping[str, str]
) -> None:
    """Writes down the rows, the live model's answers, and how close they must be met.

    Args:
        custom_modules: modules (name -> file) that define the model's registered classes.

    Raises:
        ExportError: the live model answers with NaN, or differently when asked twice.
    """
    raw = [np.asarray(_as_numpy(t)) for t in keras.tree.flatten(served.raw_outputs(rows))]
    again = [np.asarray(_as_numpy(t)) for t in keras.tree.flatten(served.raw_outputs(rows))]
    answers = served.answers(rows)
    tolerance = HALF_TOLERANCE if _computes_in_half(served.model) else FLOAT32_TOLERANCE
    for first, second in zip(raw, again, strict=True):
        if not np.isfinite(first.astype(np.float64)).all():
            raise ExportError("The model answers real rows with NaN or infinity.")
        if difference("the output", first, second, tolerance):
            raise ExportError(
                "The model answers the same rows differently each time, with training=False. "
                "Does a layer draw random numbers outside of training?"
            )
    named: dict[str, Any] = {
        f"input_{i}": storable(rows[name]) for i, name in enumerate(served.inputs)
    }
    np.savez(folder / "rows.npz", **named)
    arrays: dict[str, Any] = {f"raw_{i}": array for i, array in enumerate(raw)}
    arrays |= {f"answer_{i}": storable(a) for i, a in enumerate(answers.values())}
    np.savez(folder / "expected.npz", **arrays)
    check = {
        "inputs": list(served.inputs),
        "input_dtypes": [spec.dtype.name for spec in served.inputs.values()],
        "takes_named_inputs": served.takes_named_inputs,
        "answers": list(answers),
        "tolerance": tolerance,
        "custom_modules": dict(custom_modules),
    }
    (folder / "check.json").write_text(json.dumps(check))


class FreshProcess:
    """A new Python that imports TensorFlow while we do something else, and then checks.

    with FreshProcess() as process:
        ...                          # make FOLDER
        report = process.check(folder)
    """

    def __enter__(self) -> FreshProcess:
        environment = {
            name: value
            for name, value in os.environ.items()
            # XLA by environment would hide what a server without it does; TF_CONFIG would
            # make the process wait for the other workers of a cluster.
            if name not in ("TF_XLA_FLAGS", "TF_CONFIG")
        }
        environment |= {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
        }
        # In a folder of its own: `python -m` looks for modules in the current one first.
        self._empty = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kerastrain.export.verification"],
            env=environment,
            cwd=self._empty.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A Ctrl-C is for the trainer, which ends its helpers itself.
            start_new_session=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._empty.cleanup()

    def check(self, folder: Path) -> dict[str, Any]:
        """Has `check` done with FOLDER; the process ends. Returns its report.

        Raises:
            ExportError: the process failed; the end of what it wrote is in the message.
        """
        words, _ = self._process.communicate(f"{folder.absolute()}\n")
        if self._process.returncode != 0:
            raise ExportError(
                "The check of the export in a fresh process failed. Its last words:\n"
                + "\n".join(words.strip().splitlines()[-20:])
            )
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report


def read_check(folder: Path) -> tuple[dict[str, Any], Rows, list[np.ndarray], Rows]:
    """What `write_check` wrote: the plan, raw rows, the model's raw outputs, the answers."""
    plan = json.loads((folder / "check.json").read_text())
    with np.load(folder / "rows.npz") as stored:
        rows = {name: stored[f"input_{i}"] for i, name in enumerate(plan["inputs"])}
    with np.load(folder / "expected.npz") as stored:
        raw = [stored[f"raw_{i}"] for i in range(sum(n.startswith("raw_") for n in stored))]
        answers = {name: stored[f"answer_{i}"] for i, name in enumerate(plan["answers"])}
    return plan, rows, raw, answers


def check(folder: Path) -> dict[str, Any]:
    """Compares both formats with the recorded answers.

    Returns:
        problems: messages, empty when everything agrees.
        differences: the largest difference of each output.
        keras: None, or why `model.keras` cannot be loaded by Keras alone.
    """
    plan, rows, raw, expected = read_check(folder)
    problems, differences = _check_saved_model(folder / "model", rows, expected, plan)
    unloadable = None
    if (folder / "model" / "model.keras").exists():
        unloadable, found = check_keras(folder / "model" / "model.keras", rows, raw, plan)
        problems += found
    return {"problems": problems, "differences": differences, "keras": unloadable}


def _check_saved_model(
    folder: Path, rows: Rows, expected: Mapping[str, np.ndarray], plan: Mapping[str, Any]
) -> tuple[list[str], dict[str, float]]:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    inputs = signature_inputs(folder)
    if set(inputs) != set(rows):
        return [f"The SavedModel takes {sorted(inputs)}; expected {sorted(rows)}."], {}
    problems: list[str] = []
    differences: dict[str, float] = {}
    close_calls = ties(expected, plan["tolerance"])
    for size in BATCH_SIZES:
        where = f"SavedModel, batch size {size}"
        received = _asked(lambda batch: signature(**as_tensors(batch, inputs)), rows, size)
        if set(received) != set(expected):
            problems.append(
                f"{where}: the outputs are {sorted(received)}; expected {sorted(expected)}."
            )
            continue
        for name, values in expected.items():
            found = difference(name, values, received[name], plan["tolerance"], close_calls)
            problems += [f"{where}: {text}" for text in found]
            if values.dtype.kind == "f" and values.shape == received[name].shape:
                largest = float(np.abs(values - received[name]).max())
                differences[name] = max(differences.get(name, 0.0), largest)
    return problems, differences


def check_keras(
    path: Path, rows: Rows, raw: list[np.ndarray], plan: Mapping[str, Any]
) -> tuple[str | None, list[str]]:
    """Whether Keras alone loads the file (None, or why not), and what it answers differently."""
    for name, file in plan["custom_modules"].items():
        _import_from(name, file)
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # whatever Keras, or a class of the user's own, makes of it
        return f"{type(error).__name__}: {error}", []
    dtypes = dict(zip(plan["inputs"], plan["input_dtypes"], strict=True))

    def answer(batch: Rows) -> dict[str, Any]:
        tensors: Any = {n: as_tensor(batch[n], tf.as_dtype(dtypes[n])) for n in plan["inputs"]}
        if not plan["takes_named_inputs"]:
            (tensors,) = tensors.values()
        outputs = keras.tree.flatten(model(tensors, training=False))
        return {f"output {i}": output for i, output in enumerate(outputs)}

    received = _asked(answer, rows, BATCH_SIZES[-1])
    if len(received) != len(raw):
        return None, [f"model.keras: {len(received)} outputs; expected {len(raw)}."]
    problems = []
    for (name, values), expected in zip(received.items(), raw, strict=True):
        problems += difference(name, expected, values, plan["tolerance"])
    return None, [f"model.keras: {text}" for text in problems]


def _import_from(name: str, file: str) -> None:
    """Imports a module by name, or, for one that is not on the path, from its file."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)
        return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # a .py file always has
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _asked(answer: Any, rows: Rows, size: int) -> dict[str, np.ndarray]:
    """The answers for all rows, asked in batches of `size`."""
    count = len(next(iter(rows.values())))
    parts = [
        answer({name: array[start : start + size] for name, array in rows.items()})
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([_as_numpy(p[name]) for p in parts]) for name in parts[0]}


def _computes_in_half(model: keras.Model) -> bool:
    layers = model._flatten_layers(include_self=True, recursive=True)
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)


def _as_numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array that `np.savez` can store without pickling."""
    tensor = tf.convert_to_tensor(tensor)
    tensor = tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
    return storable(tensor.numpy())


def main() -> int:
    """Checks the folder named on the standard input; without one the trainer is gone."""
    folder = sys.stdin.readline().strip()
    if folder:
        Path(folder, "report.json").write_text(json.dumps(check(Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
