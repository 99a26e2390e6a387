"""What a model answers, as columns of a table beside those that are kept of the input.

kept = kept_columns("unused", names, schema)     # ["id"]
types = kept_types(kept, schema)                 # {"id": string}, of CSV
columns = answer_columns(answers, schema)        # {"label": …, "probability": …, …}
names = names_beside(kept, columns)              # {"id": "id"}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kerastrain.data.source import Classification
from kerastrain.data.tables.schema import Schema
from kerastrain.errors import UsageError, suggestion

# What a column of the input is called in the output when an answer has its name.
KEPT_PREFIX = "input_"


def kept_columns(keep: str, names: list[str], schema: Schema) -> list[str]:
    """The columns of the input that go into the output, in the input's order.

    Raises:
        UsageError: `keep` names a column that is not there.
    """
    if keep in ("all", "none"):
        return names if keep == "all" else []
    if keep == "unused":
        used = {column.name for column in schema.columns}
        return [name for name in names if name not in used]
    chosen = [name.strip() for name in keep.split(",")]
    for name in chosen:
        if name not in names:
            raise UsageError(
                f"--keep names '{name}'; the input's columns are {', '.join(names)}. Expected "
                f"some of them, separated by commas, or all, none, unused.{suggestion(name, names)}"
            )
    return [name for name in names if name in chosen]


def kept_types(kept: Sequence[str], schema: Schema) -> dict[str, pa.DataType]:
    """How to read the kept columns of a CSV file that the model does not take: as text.

    00123 stays 00123. A target that answers are compared with has their type instead.
    """
    classes = schema.task.classes if isinstance(schema.task, Classification) else ()
    others = {column.name for column in schema.columns}
    if not any(isinstance(value, str) for value in classes):
        others.add(schema.target)
    return {name: pa.string() for name in kept if name not in others}


def answer_columns(answers: Mapping[str, np.ndarray], schema: Schema) -> dict[str, pa.Array]:
    """A signature's answers as columns of a table."""
    if isinstance(schema.task, Classification):
        probabilities = answers["probabilities"]
        labels = answers["label"]
        # TensorFlow's strings come as bytes.
        label = pa.array(labels, pa.binary()).cast(pa.string()) if labels.dtype == object else None
        each = {
            f"probability_{value}": pa.array(np.ascontiguousarray(probabilities[:, place]))
            for place, value in enumerate(schema.task.classes)
        }
        return {
            "label": pa.array(labels) if label is None else label,
            "probability": pa.array(probabilities.max(1)),
            **each,
        }
    columns = {"prediction": pa.array(answers["prediction"])}
    for place, level in enumerate(getattr(schema.task, "quantiles", ())):
        values = np.ascontiguousarray(answers["quantiles"][:, place])
        columns[f"prediction_q{level:g}"] = pa.array(values)
    return columns


def names_beside(kept: list[str], answers: Mapping[str, Any]) -> dict[str, str]:
    """What each kept column is called in the output: its own name, unless an answer has it."""
    names, taken = {}, {*kept, *answers}
    for name in kept:
        new = name
        while new in answers or (new != name and new in taken):
            new = KEPT_PREFIX + new
        names[name] = new
        taken.add(new)
    return names


@dataclass
class Summary:
    """Of all answers, batch by batch."""

    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    rows: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, answers: Mapping[str, pa.Array]) -> None:
        if "label" in answers:
            for value, count in map(dict.values, answers["label"].value_counts().to_pylist()):
                self.labels[str(value)] = self.labels.get(str(value), 0) + count
            return
        numbers = answers["prediction"].to_numpy().astype(np.float64)
        self.rows += len(numbers)
        self.total += float(numbers.sum())
        self.least = min(self.least, float(numbers.min()))
        self.greatest = max(self.greatest, float(numbers.max()))

    def values(self) -> dict[str, float]:
        if self.labels:
            return dict(sorted(self.labels.items(), key=lambda item: (-item[1], item[0])))
        return {"least": self.least, "mean": self.total / self.rows, "greatest": self.greatest}
