"""preprocessing.json: how raw rows become the arrays that the network's formats take.

    reason = write_preprocessing(folder / "preprocessing.json", served, data, rows)   # None: there
    content = describe_encoder(encoder, columns)

It is read off the encoder's own Keras model (its constants are what it computes with), and is
only written when `encoding_reader`, which knows nothing but this file, encodes real rows as the
encoder does.

    {"columns":    [{"input": "age", "dtype": "float32"}, …],       what clients have
     "numbers":    [{"name": "age", "column": "age", "kind": "number", "mean": …}, …],
     "categories": [{"name": "job", "column": "job", "vocabulary": […], …}, …],
     "classes":    ["no", "yes"], "rules": {kind: how, in words}}

`numbers` and `categories` are in the order of the arrays' columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Data
from kerastrain.data.tables.dates import PARTS
from kerastrain.data.tables.encoded import CATEGORIES, NUMBERS, EncodedColumns
from kerastrain.data.tables.encoding import QUANTILES, SQUASH
from kerastrain.errors import ExportError
from kerastrain.export.formats.encoding_reader import encode
from kerastrain.export.rows import Rows, as_tensors
from kerastrain.workdir import write_json

if TYPE_CHECKING:
    from kerastrain.export.serving import ServedModel

TOLERANCE = 1e-5

RULES = {
    "number": "All in float32. x that is missing, NaN or infinite becomes 0. With 'mean' and "
    "'factor' (one over the standard deviation): z = (x - mean) * factor, cut to "
    f"[-1e6, 1e6], becomes z / sqrt(1 + (z * {1 / SQUASH:g})^2). With 'edges' and 'shares': the "
    "share s of training values below x is interpolated between the two edges around x; beyond "
    "the outermost edges it is the share of the nearest one. s cut to [margin, 1 - margin] "
    "becomes sqrt(2) * erfinv(2 s - 1). With fewer than two edges: 0.",
    "boolean": "0 or 1 as it is; missing becomes 0.",
    "is missing": "1 where the column's value is missing, NaN or infinite; else 0.",
    "date": "The column is text in ISO 8601: YYYY-MM-DD, then nothing, or T or a space and HH:MM, "
    "then nothing, or :SS, then nothing or a point and digits. 'missing' is 1 for any other text "
    "(all other parts are then 0), else 0. 'days': days since 1970-01-01 plus the share of the "
    "day, scaled as a number is. The others are sin or cos of 2 pi times a share: of the year, "
    "((month - 1) * 31 + day - 1) / 372; of the week, ((days + 3) mod 7) / 7; of the day, "
    "seconds / 86400.",
    "category": "The place of the value in 'vocabulary', counted from 'first'; 'unknown' for "
    "any other value. Missing text is '' and is looked up like any value; a missing number, or "
    "one that is not whole, is unknown.",
    "label": "The class at the largest of the probabilities, in the order of 'classes'.",
}


def write_preprocessing(path: Path, served: ServedModel, data: Data, rows: Rows) -> str | None:
    """Writes the file; returns why not, when the encoder cannot be described."""
    assert served.encoder is not None
    try:
        content = describe_encoder(served.encoder, data.columns)
    except ExportError as error:
        return str(error)
    with tf.device("CPU"):
        encoded = served.encode(as_tensors(rows, served.inputs))
    received = encode(content, rows)
    for name, tensor in encoded.items():
        expected = tensor.numpy()
        if not np.allclose(received[name], expected, rtol=TOLERANCE, atol=TOLERANCE):
            largest = np.abs(received[name].astype(np.float64) - expected).max()
            return (
                f"what it describes gives other '{name}' than the encoder, by up to {largest:.3g}"
            )
    if data.task is not None and hasattr(data.task, "classes"):
        content["classes"] = list(data.task.classes)
    write_json(path, content)
    return None


def describe_encoder(encoder: keras.Model, columns: EncodedColumns | None) -> dict[str, Any]:
    """The content of preprocessing.json but for the classes.

    Raises:
        ExportError: the encoder is none of this package's.
    """
    inner = [layer for layer in encoder.layers if isinstance(layer, keras.Model)]
    if columns is None or len(inner) != 1:
        raise ExportError("the encoder is not one that kerastrain has made of a table's columns")
    inputs = [tensor.name for tensor in encoder.inputs]
    numbers: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for part, places in _parts(inner[0]):
        names = [inputs[place] for place in places]
        if part.name.startswith("encode_numbers"):
            # Numbers come first in the array.
            numbers[:0] = _numbers(part, names)
        elif part.name.startswith("encode_wide_numbers"):
            raise ExportError(f"{', '.join(names)}: the file has no rule for numbers in float64")
        elif part.name.startswith("encode_date"):
            numbers += _date(part, names[0])
        else:
            categories.append(_category(part, names[0]))
    if len(numbers) != len(columns.numbers) or len(categories) != len(columns.categories):
        raise ExportError("the encoder's columns are not those of the table")
    return {
        "columns": [
            {"input": tensor.name, "dtype": tensor.dtype, "missing": _missing(tensor.dtype)}
            for tensor in encoder.inputs
        ],
        NUMBERS: [{"name": n, **one} for n, one in zip(columns.numbers, numbers, strict=True)],
        CATEGORIES: [
            {"name": n, **one} for n, one in zip(columns.categories, categories, strict=True)
        ],
        "rules": RULES,
    }


def _missing(dtype: str) -> str:
    return '""' if dtype == "string" else "NaN"


def _parts(inner: keras.Model) -> Iterator[tuple[keras.Model, list[int]]]:
    """The parts of the encoding, in the order of their columns, with the places of these."""
    found = []
    for layer in inner.get_config()["layers"]:
        if layer["class_name"] != "Functional":
            continue
        (given,) = layer["inbound_nodes"][0]["args"]
        tensors = given if isinstance(given, (list, tuple)) else [given]
        places = [int(_source(tensor).rpartition("_")[2]) for tensor in tensors]
        found.append((inner.get_layer(layer["name"]), places))
    yield from sorted(found, key=lambda item: item[1])


class _Graph:
    """A part's operations and their constants, as Keras would save them."""

    def __init__(self, part: keras.Model):
        self.layers = {layer["name"]: layer for layer in part.get_config()["layers"]}

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [layer for layer in self.layers.values() if layer["class_name"] == kind]

    def constants(self, kind: str, *, dtype: str, place: int = 1) -> list[np.ndarray]:
        """Of every operation of a kind, the array that it is given as argument `place`."""
        given = [_arguments(layer)[place] for layer in self.of(kind) if len(_arguments(layer)) > 1]
        return [a for a in map(_array, given) if a is not None and a.dtype == dtype]

    def upwards(self, layer: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The operations that a result is computed by, nearest first."""
        waiting = [layer]
        while waiting:
            for argument in _arguments(waiting.pop(0)):
                if name := _source(argument):
                    yield self.layers[name]
                    waiting.append(self.layers[name])

    def column_of(self, layer: dict[str, Any]) -> int | None:
        """Which of the stacked numbers an operation is about."""
        for above in self.upwards(layer):
            if above["class_name"] == "GetItem":
                place = _arguments(above)[1][-1]
                if isinstance(place, int):
                    return place
        return None


def _arguments(layer: dict[str, Any]) -> list[Any]:
    return list(layer["inbound_nodes"][0]["args"]) if layer["inbound_nodes"] else []


def _source(argument: Any) -> str:
    """The name of the operation whose result an argument is; "" for a constant."""
    is_tensor = isinstance(argument, Mapping) and argument["class_name"] == "__keras_tensor__"
    return argument["config"]["keras_history"][0] if is_tensor else ""


def _array(argument: Any) -> np.ndarray | None:
    if isinstance(argument, Mapping) and argument["class_name"] in ("__numpy__", "__tensor__"):
        config = argument["config"]
        return np.array(config["value"], config["dtype"])
    return None


def _numbers(part: keras.Model, names: list[str]) -> list[dict[str, Any]]:
    graph = _Graph(part)
    centers = graph.constants("Subtract", dtype="float32")
    if centers:
        (factors,) = graph.constants("Multiply", dtype="float32")
        masks = graph.constants("Where", dtype="bool", place=0)
        is_number = masks[0] if masks else np.ones(len(names), bool)
        scalings = [_standard(c, f) for c, f in zip(centers[0], factors, strict=True)]
    else:
        by_column = _quantiles(graph)
        is_number = np.array([place in by_column for place in range(len(names))])
        scalings = [by_column.get(place, {}) for place in range(len(names))]
    described = [
        {"column": name, "kind": "number", **scaling}
        if kept
        else {"column": name, "kind": "boolean"}
        for name, kept, scaling in zip(names, is_number, scalings, strict=True)
    ]
    gaps = [place for array in graph.constants("Take", dtype="int32") for place in array]
    return described + [{"column": names[place], "kind": "is missing"} for place in gaps]


def _standard(center: Any, factor: Any) -> dict[str, Any]:
    return {
        "scaling": "standard",
        "mean": float(center),
        "std": 1 / float(factor),
        "factor": float(factor),
        "squash": SQUASH,
    }


def _quantiles(graph: _Graph) -> dict[int, dict[str, Any]]:
    """Each number's edges, and the share of the training values below each of them."""
    found: dict[int, dict[str, Any]] = {}
    for layer in graph.of("ZerosLike"):  # of a column whose values do not vary
        place = graph.column_of(layer)
        if place is not None:
            found[place] = {"scaling": "quantiles", "edges": [], "shares": []}
    for layer in graph.of("SearchSorted"):
        edges = _array(_arguments(layer)[0])
        place = graph.column_of(layer)
        assert edges is not None and place is not None
        found[place] = {
            "scaling": "quantiles",
            "edges": edges.tolist(),
            "shares": _shares(graph, place, edges),
            "margin": 0.5 / QUANTILES / 10,
        }
    return found


def _shares(graph: _Graph, place: int, edges: np.ndarray) -> list[float]:
    for layer in graph.of("Take"):
        array = _array(_arguments(layer)[0])
        if array is None or array.shape != edges.shape or (array == edges).all():
            continue
        if graph.column_of(layer) == place:
            return array.tolist()
    raise ExportError(f"the quantiles of column {place} cannot be read off the encoder")


def _date(part: keras.Model, name: str) -> list[dict[str, Any]]:
    graph = _Graph(part)
    scaling = _quantiles_of_days(graph)
    if scaling is None:
        (center,) = graph.constants("Subtract", dtype="float32")
        (factor,) = graph.constants("Multiply", dtype="float32")
        scaling = _standard(center.item(), factor.item())
    kind = {"column": name, "kind": "date"}
    return [{**kind, "part": PARTS[0], **scaling}, *({**kind, "part": p} for p in PARTS[1:])]


def _quantiles_of_days(graph: _Graph) -> dict[str, Any] | None:
    by_place = _quantiles(graph)
    return by_place.get(0) if by_place else None


def _category(part: keras.Model, name: str) -> dict[str, Any]:
    graph = _Graph(part)
    kinds = (keras.layers.StringLookup, keras.layers.IntegerLookup)
    lookups = [layer for layer in part.layers if isinstance(layer, kinds)]
    if len(lookups) != 1:
        raise ExportError(f"'{part.name}' is not an encoding of kerastrain's")
    vocabulary = lookups[0].get_vocabulary(include_special_tokens=False)
    shift = _arguments(graph.of("Subtract")[-1])[1]
    is_text = isinstance(lookups[0], keras.layers.StringLookup)
    return {
        "column": name,
        "kind": "category",
        "vocabulary": [str(v) if is_text else int(v) for v in vocabulary],
        "first": 1 - shift,
        "unknown": -shift,
    }
