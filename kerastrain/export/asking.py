"""A published SavedModel as something to ask, in batches, in this process.

export = load_export(version_folder)
outputs = export.ask({"age": ages, "city": cities})     # {"probabilities": [n, classes], …}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerastrain.errors import ExportError
from kerastrain.export.loading import load_saved_model
from kerastrain.export.naming import signature_inputs
from kerastrain.export.quiet import quiet_tensorflow
from kerastrain.export.rows import as_tensors

# A row of a table is a few hundred bytes, and a call costs as much as a thousand of them;
# what a network makes of an image can be a thousand times that.
TABLE_ROWS_AT_ONCE = 8192
OTHER_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Export:
    """A loaded version.

    Attributes:
        signature: its "serving_default", called with tensors by name.
        inputs: the signature's inputs by name.
        loaded: keeps alive what the signature refers to.
    """

    signature: Any
    inputs: Mapping[str, tf.TensorSpec]
    loaded: Any

    def ask(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The answers {name: [n, ...]} for all rows {name: [n, ...]}."""
        return self._ask(rows, len(next(iter(rows.values()))))

    def ask_tensors(self, rows: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Like `ask`, for rows that already are tensors of the signature's dtypes."""
        return self._ask(rows, int(next(iter(rows.values())).shape[0]))

    def _ask(self, rows: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        size = rows_at_once(self.inputs)
        parts = []
        with quiet_tensorflow():
            for start in range(0, count, size):
                batch = {name: values[start : start + size] for name, values in rows.items()}
                if not tf.is_tensor(next(iter(batch.values()))):
                    batch = as_tensors(batch, self.inputs)
                answers = self.signature(**batch)
                parts.append({name: tensor.numpy() for name, tensor in answers.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load_export(version_folder: Path) -> Export:
    """Loads a version folder.

    Raises:
        ExportError: it cannot be loaded as a SavedModel.
    """
    try:
        with quiet_tensorflow():
            loaded = load_saved_model(version_folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{version_folder} cannot be loaded as a SavedModel: {error}") from error
    return Export(loaded.signatures["serving_default"], signature_inputs(version_folder), loaded)


def rows_at_once(inputs: Mapping[str, tf.TensorSpec]) -> int:
    """Rows in a batch: many where each input is one value a row."""
    is_table = all(spec.shape.rank == 1 for spec in inputs.values())
    return TABLE_ROWS_AT_ONCE if is_table else OTHER_ROWS_AT_ONCE
