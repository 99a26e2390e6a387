"""What versions of a model answer to the same rows, so that they can be compared.

outputs = answers_to(base / "3", data, "validation", name="version 3")
task = common_task({"version 3": one, "version 4": other})    # raises when there is none
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Regression, Task
from kerastrain.errors import ExportError, KerastrainError
from kerastrain.export.asking import Export, load_export
from kerastrain.export.rows import Rows, Split, examples_of, rows_of_split


def answers_to(
    folder: Path, data: Data, split: Split, *, name: str, first: int | None = None
) -> dict[str, np.ndarray]:
    """A version's answers {output: [n, ...]} to the rows of a split.

    Args:
        name: of the version, for messages.
        first: only so many rows. Default: all.

    Raises:
        DataError: the data have no such split.
        ExportError: the version cannot be loaded, or does not take the rows.
    """
    examples_of(data, split)  # Whether there are any is known before a model is loaded.
    export = load_export(folder)
    try:
        rows = rows_of_split(data, split, export.inputs)
        _check_shapes(export, rows)
        return export.ask({name: values[:first] for name, values in rows.items()})
    except (ExportError, ValueError, TypeError, tf.errors.OpError) as error:
        why = str(error) if isinstance(error, KerastrainError) else str(error).partition("\n")[0]
        raise ExportError(
            f"{name[:1].upper()}{name[1:]} cannot take the rows of these data, so it cannot be "
            f"compared on them: {why}"
        ) from error


def _check_shapes(export: Export, rows: Rows) -> None:
    missing = [name for name in export.inputs if name not in rows]
    if missing:
        raise ExportError(
            f"It takes the inputs {', '.join(export.inputs)}; the rows have no '{missing[0]}'."
        )
    for name, spec in export.inputs.items():
        found = rows[name].shape
        if not spec.shape[1:].is_compatible_with(found[1:]):
            raise ExportError(
                f"Its input '{name}' takes rows of shape {spec.shape[1:]}; these have "
                f"{tf.TensorShape(found[1:])}."
            )


def common_task(tasks: Mapping[str, Task | None]) -> Task:
    """What all versions predict.

    Numbers are compared by their predictions alone where the versions' quantiles differ.

    Args:
        tasks: version, for messages -> its task.

    Raises:
        ExportError: they predict different things.
    """
    (first, one), *others = tasks.items()
    found = _known(first, one)
    for name, task in others:
        other = _known(name, task)
        if isinstance(found, Regression) and isinstance(other, Regression):
            if found.target != other.target:
                raise _not_comparable(first, found, name, other)
            if found.quantiles != other.quantiles:
                found = Regression(found.target)
        elif found != other:
            raise _not_comparable(first, found, name, other)
    return found


def _known(name: str, task: Task | None) -> Task:
    if task is None:
        raise ExportError(
            f"What {name} predicts is not recorded in its manifest ('task'), so its answers cannot "
            "be scored."
        )
    return task


def _not_comparable(first: str, one: Task, second: str, other: Task) -> ExportError:
    return ExportError(
        f"{first} and {second} cannot be compared: {first} predicts {_told(one)}, "
        f"{second} {_told(other)}."
    )


def _told(task: Task) -> str:
    if isinstance(task, Classification):
        shown = ", ".join(map(str, task.classes[:8]))
        more = f", … ({len(task.classes)} in all)" if len(task.classes) > 8 else ""
        positive = "" if task.positive is None else f", of which {task.positive} is positive"
        return f"the classes {shown}{more}{positive}"
    return f"the number '{task.target}'"
