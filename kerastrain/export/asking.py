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
from kerastrain.export.manifest import NAME
from kerastrain.export.naming import signature_inputs
from kerastrain.export.quiet import quiet_tensorflow
from kerastrain.export.rows import as_tensors, in_batches
from kerastrain.workdir import read_json

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
        at_once: rows in a batch.
        loaded: keeps alive what the signature refers to.
    """

    signature: Any
    inputs: Mapping[str, tf.TensorSpec]
    at_once: int
    loaded: Any

    def ask(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The answers {name: [n, ...]} for all rows {name: [n, ...]}.

        Args:
            rows: arrays, or tensors of the signature's dtypes.
        """
        parts = []
        with quiet_tensorflow():
            for batch in in_batches(rows, self.at_once):
                is_tensor = tf.is_tensor(next(iter(batch.values())))
                tensors = batch if is_tensor else as_tensors(batch, self.inputs)
                answers = self.signature(**tensors)
                parts.append({name: tensor.numpy() for name, tensor in answers.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load_export(version_folder: Path, *, at_once: int | None = None) -> Export:
    """Loads a version folder.

    Args:
        at_once: rows in a batch; None: as many as in its training, by its manifest. Tables,
            whose rows are small, are asked about in larger ones.

    Raises:
        ExportError: it cannot be loaded as a SavedModel.
    """
    try:
        with quiet_tensorflow():
            loaded = load_saved_model(version_folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{version_folder} cannot be loaded as a SavedModel: {error}") from error
    inputs = signature_inputs(version_folder)
    if all(spec.shape.rank == 1 for spec in inputs.values()):
        at_once = TABLE_ROWS_AT_ONCE
    elif at_once is None:
        path = version_folder / NAME
        at_once = training_batch(read_json(path) if path.exists() else {})
    return Export(loaded.signatures["serving_default"], inputs, at_once, loaded)


def training_batch(facts: Mapping[str, Any]) -> int:
    """The batch size of a version's training by its manifest; many where that does not say."""
    size = (facts.get("options") or {}).get("batch_size")
    return min(size, OTHER_ROWS_AT_ONCE) if isinstance(size, int) else OTHER_ROWS_AT_ONCE
