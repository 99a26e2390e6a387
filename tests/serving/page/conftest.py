"""A server in this process with tiny models: an image, a table, a pair of numbers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf
import uvicorn

from kerastrain.data.tables.columns import raw_columns
from kerastrain.data.tables.schema import infer_schema
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.export.manifest import write_manifest
from kerastrain.export.naming import rewrite_signatures
from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.models import Models, ModelSpec
from kerastrain.serving.predictor import Predictor
from kerastrain.serving.rest import create_app

# A column's name and a category: what is put into the page as HTML runs it.
HTML = "<img src=x onerror=\"document.title='taken over'\">"


@tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, "image")])
def tall_or_wide(image):
    """Whether the ink covers more rows or more columns."""
    ink = tf.cast(image > 100, tf.float32)
    tall = tf.reduce_sum(tf.reduce_max(ink, axis=2), axis=1)
    wide = tf.reduce_sum(tf.reduce_max(ink, axis=1), axis=1)
    probabilities = tf.nn.softmax(tf.stack([tall, wide], axis=1))
    return {"probabilities": probabilities, "label": tf.argmax(probabilities, 1)}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
def size_of(image_bytes):
    return {"size": tf.strings.length(image_bytes)}


def price(factor: float):
    """`factor` times the size; a missing size counts 1000, a city 1, a date 0.5."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "size"),
            tf.TensorSpec([None], tf.string, "column_1"),
            tf.TensorSpec([None], tf.string, "sold"),
            tf.TensorSpec([None], tf.int32, "rooms"),
        ]
    )
    def price_of(size, column_1, sold, rooms):
        size = tf.where(tf.math.is_nan(size), 1000.0, size)
        given = tf.cast(column_1 != "", tf.float32) + 0.5 * tf.cast(sold != "", tf.float32)
        middle = factor * size + given + tf.cast(0 * rooms, tf.float32)
        return {"prediction": middle, "quantiles": tf.stack([middle - 1, middle + 1], axis=1)}

    return price_of


@tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
def total(x):
    return {"y": tf.reduce_sum(x, axis=1)}


def house_table() -> pa.Table:
    cities = ["Bern", "Bern", HTML, "Basel", "Bern", None, "Basel", "Bern", "Bern", "Bern"] * 3
    return pa.table(
        {
            "size": pa.array([0.42, 20, 30, 40, 50, 60, 70, 80, 90, None] * 3, pa.float32()),
            HTML: cities,
            "sold": pa.array([f"2024-01-{day:02}" for day in range(1, 31)]).cast(pa.date32()),
            "price": pa.array(range(30), pa.float32()),
        }
    )


def house_manifest() -> dict[str, Any]:
    table = house_table()
    schema = infer_schema(table, "price", task="regression")
    statistics = table_statistics(raw_columns(table, schema), schema)
    return {
        "recipe": "tabular",
        "task": {"kind": "regression", "target": "price", "quantiles": [0.1, 0.9]},
        "data": {"schema": schema.to_json(), "statistics": statistics, "target": "price"},
        "metrics": {"rmse": 1.5},
    }


def save(
    function: Any, folder: Path, manifest: Mapping[str, Any] | None = None, **others: Any
) -> None:
    signatures = {"serving_default": function, **others}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)
    rewrite_signatures(folder, {HTML: "column_1"}, {})  # of houses; the others have no such name
    if manifest is not None:
        write_manifest(folder, manifest)


def publish(function: Any, base: Path, version: int, manifest: Mapping[str, Any]) -> None:
    """By one rename, as a version is published."""
    pending = base / f".pending-{version}"
    save(function, pending, manifest)
    os.rename(pending, base / str(version))


@dataclass
class Server:
    url: str
    models: Models
    bases: Path


@pytest.fixture(scope="session")
def html() -> str:
    """The name of a column of `houses` and of a value in it."""
    return HTML


@pytest.fixture
def publish_houses(server: Server) -> Callable[[int], None]:
    """Publishes a version of `houses`: it answers `factor` times the size."""
    return lambda factor: publish(price(factor), server.bases / "houses", factor, house_manifest())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models digits, houses (label "stable"), pair; and broken, whose version 1 cannot load."""
    bases = tmp_path_factory.mktemp("bases")
    image = {"classes": ["tall", "wide"], "pixels": {"brightest": 255.0}}
    save(tall_or_wide, bases / "digits" / "1", image, image_bytes=size_of)
    save(price(2.0), bases / "houses" / "1", house_manifest())
    save(total, bases / "pair" / "1")
    (bases / "broken" / "1").mkdir(parents=True)
    labels = {"houses": {"stable": 1}}
    names = ("broken", "digits", "houses", "pair")
    specs = [ModelSpec(name, bases / name, labels.get(name, {})) for name in names]
    yield from _serving(Models(specs, poll_seconds=0.1), bases)


def _serving(models: Models, bases: Path) -> Iterator[Server]:
    metrics = Metrics()
    ready, started = threading.Event(), {}

    async def serve() -> None:
        predictor = Predictor(models, metrics=metrics)
        app = create_app(predictor, metrics, AccessLog())
        started["server"] = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        await models.start()
        ready.set()
        await started["server"].serve()
        await predictor.close()
        await models.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    while not started["server"].started:
        assert thread.is_alive()
        thread.join(0.01)
    port = started["server"].servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}", models, bases)
    started["server"].should_exit = True
    thread.join()
