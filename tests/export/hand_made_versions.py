"""Versions whose SavedModels were written by hand in place of a training."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.export import manifest
from kerastrain.export.placing import move_into_place, pending_folder

WEATHER = Classification(("cold", "warm"))


def save_weather(folder, *, threshold=0.0, columns=("temperature", "wind"), task=WEATHER):
    """A SavedModel that says "warm" above a temperature."""
    inputs = [tf.TensorSpec([None], tf.float32, name) for name in columns]

    @tf.function(input_signature=inputs)
    def answer(*values):
        warm = tf.sigmoid(5 * (values[0] - threshold))
        label = tf.where(warm > 0.5, str(task.classes[1]), str(task.classes[0]))
        return {"probabilities": tf.stack([1 - warm, warm], 1), "label": label}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": answer})


def save_scaled(folder, *, factor=1.0):
    """A SavedModel that predicts a number from [None, 2]."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "point")])
    def answer(point):
        return {"prediction": factor * tf.reduce_sum(point, 1)}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": answer})


def publish(base, save, *, task=WEATHER, **facts):
    """Publishes what `save(folder)` writes as the next version; returns its number."""
    base.mkdir(parents=True, exist_ok=True)
    with pending_folder(base) as pending:
        folder = pending / "model"
        save(folder)
        content = {"task": manifest.task_to_json(task), "step": 10, **facts}
        manifest.write_manifest(folder, {"created": "2026-01-02T03:04:05Z", **content})
        return move_into_place(folder, base)


def weather_data(rows=200, seed=0):
    """Temperatures and winds; warm from 0.0 on, for all but a few rows."""
    random = np.random.default_rng(seed)
    columns = {n: random.normal(size=rows).astype(np.float32) for n in ("temperature", "wind")}
    warm = columns["temperature"] + 0.1 * random.normal(size=rows) > 0
    whole = Examples(columns, warm.astype(np.int64))
    parts = np.split(np.arange(rows), [rows // 2, 3 * rows // 4])
    train, validation, test = (whole.take(part) for part in parts)
    names = ("train", "validation", "test")
    return Data(
        train=train,
        validation=validation,
        test=test,
        task=WEATHER,
        split_rows=dict(zip(names, parts, strict=True)),
    )


def point_data(rows=120, seed=0):
    """Points whose target is the sum of their coordinates, nearly."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(rows, 2)).astype(np.float32)
    targets = points.sum(1) + 0.05 * random.normal(size=rows).astype(np.float32)
    whole = Examples(points, targets)
    parts = np.split(np.arange(rows), [rows // 2, 3 * rows // 4])
    train, validation, test = (whole.take(part) for part in parts)
    return Data(train=train, validation=validation, test=test, task=Regression("sum"))
