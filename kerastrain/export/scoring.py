"""Metrics of an export on the test split, computed by scikit-learn.

    score(task, {"probabilities": p, "label": c}, targets)   # {"accuracy": 0.99, …}
    evaluate_export(version_folder, data)                     # the same, asked of the SavedModel

Nothing of the training's metrics is used, so what is published with a model
was measured on its answers by other code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.metrics
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Regression, Task
from kerastrain.errors import DataError, ExportError
from kerastrain.export.naming import signature_inputs
from kerastrain.export.quiet import quiet_tensorflow
from kerastrain.export.rows import as_tensors, raw_rows

ROWS_AT_ONCE = 1024


def score(
    task: Task | None, outputs: Mapping[str, np.ndarray], targets: np.ndarray
) -> dict[str, float]:
    """Metrics by name; those that the data do not define (R² of one row) are left out.

    Args:
        outputs: a signature's answers [n, ...].
        targets: class indices [n] or one-hot rows [n, classes]; or numbers [n, ...].
    Returns:
        Classification: accuracy, loss (natural logarithm), f1_macro, and roc_auc
        for two classes. Regression: rmse, mae, r2. Without a task: nothing.
    """
    if isinstance(task, Classification):
        metrics = _score_classes(outputs["probabilities"], _class_indices(targets))
    elif isinstance(task, Regression):
        metrics = _score_numbers(outputs["prediction"], targets)
    else:
        metrics = {}
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _class_indices(targets: np.ndarray) -> np.ndarray:
    if targets.ndim == 2 and targets.shape[1] > 1:
        return targets.argmax(1)
    return targets.reshape(-1).astype(np.int64)


def _score_classes(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    known = list(range(probabilities.shape[1]))
    # In float64 and normalised again: scikit-learn warns where float32 sums to 0.9999999.
    exact = np.clip(probabilities.astype(np.float64), 0, None)
    exact /= exact.sum(1, keepdims=True)
    labels = probabilities.argmax(1)
    metrics = {
        "accuracy": sklearn.metrics.accuracy_score(targets, labels),
        "loss": sklearn.metrics.log_loss(targets, exact, labels=known),
        "f1_macro": sklearn.metrics.f1_score(targets, labels, average="macro", zero_division=0),
    }
    if len(known) == 2 and len(np.unique(targets)) == 2:
        metrics["roc_auc"] = sklearn.metrics.roc_auc_score(targets, exact[:, 1])
    return metrics


def _score_numbers(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    expected = targets.reshape(len(targets), -1).astype(np.float64)
    received = predictions.reshape(len(predictions), -1).astype(np.float64)
    metrics = {
        "rmse": sklearn.metrics.root_mean_squared_error(expected, received),
        "mae": sklearn.metrics.mean_absolute_error(expected, received),
    }
    if len(expected) > 1:
        metrics["r2"] = sklearn.metrics.r2_score(expected, received)
    return metrics


def evaluate_export(
    version_folder: Path, data: Data, *, task: Task | None = None
) -> dict[str, float]:
    """Loads the SavedModel, asks it about every raw row of the test split, scores the answers.

    Args:
        task: what is predicted, for data that do not say it themselves.

    Raises:
        DataError: the data have no test split.
        ExportError: the SavedModel cannot be loaded, or does not take the rows.
    """
    if data.test is None:
        raise DataError("The data have no test split to evaluate on.")
    try:
        with quiet_tensorflow():
            loaded = tf.saved_model.load(str(version_folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{version_folder} cannot be loaded as a SavedModel: {error}") from error
    signature = loaded.signatures["serving_default"]
    inputs = signature_inputs(version_folder)
    rows = raw_rows(data, inputs)
    if len(data.test) != len(next(iter(rows.values()))):
        raise DataError("The data's `test_rows` and test split differ in their number of rows.")
    with quiet_tensorflow():
        outputs = ask(signature, rows, inputs)
    return score(data.task or task, outputs, data.test.targets)


def ask(signature: Any, rows: Mapping[str, np.ndarray], inputs: Any) -> dict[str, np.ndarray]:
    """A signature's answers for all rows, asked in batches."""
    count = len(next(iter(rows.values())))
    parts = []
    for start in range(0, count, ROWS_AT_ONCE):
        batch = {name: array[start : start + ROWS_AT_ONCE] for name, array in rows.items()}
        parts.append(signature(**as_tensors(batch, inputs)))
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
