"""Does the export answer as the live model does? Asked in a fresh process, before publishing.

    write_check(folder, served, rows)     # rows and the live model's answers
    report = check(folder)                # {"problems": [], …}

A folder under check holds `model/` (the version to be), `rows.npz`,
`expected.npz`, `requests.npz` and `check.json`. `check` is done by `fresh_process.FreshProcess`,
which runs this module and knows nothing but these files: the SavedModel is loaded by TensorFlow
alone, `model.keras` by Keras while this package is hidden from it.

Importing TensorFlow takes longer than most checks. So the process stays, idle, with the imports
done and nothing else, and forks for each check: a rehearsal before the training and the
check after it start from the same clean state.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from kerastrain.errors import ExportError
from kerastrain.export.clean_environment import without_this_package
from kerastrain.export.comparison import (
    FLOAT32_TOLERANCE,
    HALF_TOLERANCE,
    difference,
    storable,
    ties,
)
from kerastrain.export.formats.making import said
from kerastrain.export.fresh_process import LOG
from kerastrain.export.loading import load_saved_model
from kerastrain.export.naming import signature_inputs
from kerastrain.export.rows import Rows, as_array, as_tensor, as_tensors, first_rows, in_batches
from kerastrain.export.seeds import Seeds
from kerastrain.export.serving import ServedModel
from kerastrain.export.signatures import DEFAULT, as_plain_tensors, sample_requests

# Besides the one of the live model: asked about a few rows.
SMALL_BATCHES, FEW_ROWS = (1, 7), 8
# Signatures besides the default one, which call it, are asked about rows of so many bytes:
# images become files for them, and lists of numbers.
REQUEST_BYTES = 4 << 20
# The live model is asked about as many rows as there is time for.
LIVE_SECONDS = 3.0
NO_SEED = "given anew at each call, from no seed that could be set"


def write_check(folder: Path, served: ServedModel, rows: Rows) -> dict[str, Rows]:
    """Writes down the rows, the live model's answers, and how close they must be met.

    Returns:
        signature -> {input: array [n, ...]}: the rows that were asked, as each signature takes
        them. Fewer than `rows` for a model that takes long.

    Raises:
        ExportError: the live model answers with NaN.
    """
    outputs = served.raw_outputs(rows, seconds=LIVE_SECONDS)
    raw = [as_array(output) for output in keras.tree.flatten(outputs)]
    compared = [output for place, output in enumerate(raw) if place not in served.changing]
    if not all(np.isfinite(output.astype(np.float64)).all() for output in compared):
        raise ExportError("The model answers real rows with NaN or infinity.")
    rows = first_rows(rows, len(raw[0]))
    answers = served.named(outputs)
    named: dict[str, Any] = {
        f"input_{i}": storable(rows[name]) for i, name in enumerate(served.inputs)
    }
    np.savez(folder / "rows.npz", **named)
    arrays: dict[str, Any] = {f"raw_{i}": array for i, array in enumerate(raw)}
    arrays |= {f"answer_{i}": storable(a) for i, a in enumerate(answers.values())}
    np.savez(folder / "expected.npz", **arrays)
    few = max(FEW_ROWS, REQUEST_BYTES // sum(array[:1].nbytes for array in rows.values()))
    if served.seeds.drawn:  # What is drawn for a batch hangs on its size.
        few = len(raw[0])
    requests = sample_requests(served, first_rows(rows, few), first_rows(answers, few))
    _write_requests(folder, requests)
    check = {
        "inputs": list(served.inputs),
        "input_dtypes": [spec.dtype.name for spec in served.inputs.values()],
        "takes_named_inputs": served.takes_named_inputs,
        "answers": list(answers),
        "tolerance": tolerance_of(served.model),
        "batch_size": served.at_once,
        "batch_sizes": batch_sizes(served),
        "draws": served.seeds.drawn,
        "seeds": [value.tolist() for value in served.seeds.values],
        "unchecked": [
            name
            for place, name in enumerate(answers)
            # With a task all answers are made of the one output.
            if served.changing and (served.task is not None or place in served.changing)
        ],
        "requests": {name: [list(asked), list(told)] for name, (asked, told) in requests.items()},
    }
    (folder / "check.json").write_text(json.dumps(check))
    return {DEFAULT: rows, **{name: asked for name, (asked, _) in requests.items()}}


def batch_sizes(served: ServedModel) -> list[int]:
    """Those that the export is asked in."""
    small = () if served.seeds.drawn else SMALL_BATCHES
    return sorted({*small, served.at_once})


def _write_requests(folder: Path, requests: Mapping[str, Any]) -> None:
    """The rows as each further signature takes them, and the answers: requests.npz."""
    arrays: dict[str, Any] = {}
    for name, (asked, told) in requests.items():
        for kind, values in (("asked", asked), ("told", told)):
            for i, array in enumerate(values.values()):
                arrays |= _packed(f"{name}_{kind}_{i}", array)
    np.savez(folder / "requests.npz", **arrays)


def _packed(key: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Texts as their bytes and lengths: NumPy's own strings lose zeros at the end."""
    if array.dtype.kind not in "OSU":
        return {key: array}
    texts = [v.encode() if isinstance(v, str) else v for v in array.reshape(-1).tolist()]
    lengths = np.array([len(text) for text in texts], np.int64).reshape(array.shape)
    return {key: np.frombuffer(b"".join(texts), np.uint8), f"{key}_lengths": lengths}


def _unpacked(stored: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if f"{key}_lengths" not in stored:
        return stored[key]
    lengths, content = stored[f"{key}_lengths"], stored[key].tobytes()
    ends = np.cumsum(lengths.reshape(-1)).tolist()
    starts = [0, *ends[:-1]]
    texts = np.empty(len(ends), object)
    texts[:] = [content[start:end] for start, end in zip(starts, ends, strict=True)]
    return texts.reshape(lengths.shape)


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
        unchecked: what could not be compared -> why.
        keras: None, or why `model.keras` cannot be loaded by Keras alone.
    """
    plan, rows, raw, expected = read_check(folder)
    loaded = load_saved_model(folder / "model")
    seeds = Seeds.of_export(loaded)
    problems, differences = _check_rows(loaded, folder, rows, expected, plan, seeds)
    problems += _check_requests(loaded, folder, plan, seeds)
    unchecked = dict.fromkeys(plan["unchecked"], NO_SEED)
    unloadable = None
    if (folder / "model" / "model.keras").exists():
        path = folder / "model" / "model.keras"
        unloadable, found, uncomparable = check_keras(path, rows, raw, plan)
        problems += found
        unchecked |= uncomparable
    return {
        "problems": problems,
        "differences": differences,
        "unchecked": unchecked,
        "keras": unloadable,
    }


def _check_rows(
    loaded: Any,
    folder: Path,
    rows: Rows,
    expected: Mapping[str, np.ndarray],
    plan: Mapping[str, Any],
    seeds: Seeds,
) -> tuple[list[str], dict[str, float]]:
    """Asks "serving_default" in batches of several sizes: small ones about a few rows."""
    signature = loaded.signatures["serving_default"]
    inputs = signature_inputs(folder / "model")
    if set(inputs) != set(rows):
        return [f"The SavedModel takes {sorted(inputs)}; expected {sorted(rows)}."], {}
    problems: list[str] = []
    differences: dict[str, float] = {}
    close_calls = ties(expected, plan["tolerance"])
    for size in plan["batch_sizes"]:
        where = f"SavedModel, batch size {size}"
        count = len(next(iter(rows.values()))) if size == plan["batch_size"] else FEW_ROWS
        asked = first_rows(rows, count)
        received = _asked(lambda b: signature(**as_tensors(b, inputs)), asked, size, seeds)
        if set(received) != set(expected):
            problems.append(
                f"{where}: the outputs are {sorted(received)}; expected {sorted(expected)}."
            )
            continue
        for name, whole in expected.items():
            values = whole[:count]
            calls = None if close_calls is None else close_calls[:count]
            found = difference(name, values, received[name], plan["tolerance"], calls)
            problems += [f"{where}: {text}" for text in found]
            is_number = values.dtype.kind == "f" and name not in plan["unchecked"]
            if is_number and values.shape == received[name].shape:
                largest = float(np.abs(values - received[name]).max())
                differences[name] = max(differences.get(name, 0.0), largest)
    return problems, differences


def _check_requests(loaded: Any, folder: Path, plan: Mapping[str, Any], seeds: Seeds) -> list[str]:
    """Asks every further signature."""
    problems: list[str] = []
    with np.load(folder / "requests.npz") as stored:
        for name, (inputs, outputs) in plan["requests"].items():
            asked = [_unpacked(stored, f"{name}_asked_{i}") for i in range(len(inputs))]
            told = {o: _unpacked(stored, f"{name}_told_{i}") for i, o in enumerate(outputs)}
            # Of its own answers: an image that became a file is not quite the row it was.
            close_calls = ties(told, plan["tolerance"])
            signature = loaded.signatures[name]
            received = _asked(
                lambda batch, signature=signature: signature(**as_plain_tensors(batch)),
                dict(zip(inputs, asked, strict=True)),
                plan["batch_size"],
                seeds,
            )
            if set(received) != set(outputs):
                problems.append(f"Signature {name}: the outputs are {sorted(received)}.")
                continue
            for output, values in told.items():
                answer, expected = received[output], storable(values)
                found = difference(output, expected, answer, plan["tolerance"], close_calls)
                problems += [f"Signature {name}: {text}" for text in found]
    return problems


def check_keras(
    path: Path, rows: Rows, raw: list[np.ndarray], plan: Mapping[str, Any]
) -> tuple[str | None, list[str], dict[str, str]]:
    """Whether Keras alone loads the file (None, or why not), what differs, what is unchecked."""
    try:
        with without_this_package():
            model = keras.saving.load_model(path)
    except Exception as error:  # whatever Keras makes of a class that it does not know
        return said(error), [], {}
    dtypes = dict(zip(plan["inputs"], plan["input_dtypes"], strict=True))

    def answer(batch: Rows) -> dict[str, Any]:
        tensors: Any = {n: as_tensor(batch[n], tf.as_dtype(dtypes[n])) for n in plan["inputs"]}
        if not plan["takes_named_inputs"]:
            (tensors,) = tensors.values()
        outputs = keras.tree.flatten(model(tensors, training=False))
        return {f"output {i}": output for i, output in enumerate(outputs)}

    seeds = Seeds.of(model, values=plan["seeds"])
    if plan["draws"] and not seeds.fits:
        return None, [], {"model.keras": "it draws from other seed generators than the live model"}
    received = _asked(answer, rows, plan["batch_size"], seeds)
    if len(received) != len(raw):
        return None, [f"model.keras: {len(received)} outputs; expected {len(raw)}."], {}
    problems = []
    for (name, values), expected in zip(received.items(), raw, strict=True):
        problems += difference(name, expected, values, plan["tolerance"])
    return None, [f"model.keras: {text}" for text in problems], {}


def _asked(answer: Any, rows: Rows, size: int, seeds: Seeds) -> dict[str, np.ndarray]:
    """The answers for all rows, asked in batches of `size`, each from the same seeds."""
    parts = []
    for batch in in_batches(rows, size):
        answers = seeds.asked(functools.partial(answer, batch))
        parts.append({name: as_array(part) for name, part in answers.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def tolerance_of(model: keras.Model) -> float:
    """How close its export's answers must be; wider for one that computes in half precision."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    in_half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers)
    return HALF_TOLERANCE if in_half else FLOAT32_TOLERANCE


def main() -> int:
    """Obeys each line of the standard input, in a child each; ends with the input.

    A line is the folder to be checked, as JSON. Writes "0" when the report is written, and else
    the child's status.
    """
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _check_as_child(Path(json.loads(line)))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return 0


def _check_as_child(folder: Path) -> NoReturn:
    """Writes report.json, or what went wrong to the log; ends the process."""
    status = 1
    try:
        with open(folder / LOG, "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        (folder / "report.json").write_text(json.dumps(check(folder)))
        status = 0
    except BaseException:  # The log tells; the parent reads it.
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
