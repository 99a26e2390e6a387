"""Models so small that making one takes no time, published as versions of a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Publish = Callable[..., Path]


def save_tiny(folder: Path, scale: float) -> None:
    """Sums times `scale`, numbers read from text, and both on tf.train.Example."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    module = tf.Module()
    module.scale = tf.Variable(scale)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def sums(x):
        return {"total": tf.reduce_sum(x, 1) * module.scale, "twice": 2.0 * x * module.scale}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def read(text):
        return {"number": tf.strings.to_number(text), "echo": tf.strings.upper(text)}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def means(x):
        return {"mean": tf.reduce_mean(x, 1)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def single(x):
        return {"y": x + 1.0}

    def values(serialized):
        features = {"a": tf.io.FixedLenFeature([], tf.float32, 0.0)}
        return tf.io.parse_example(serialized, features)["a"] * module.scale

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs):
        scores = tf.stack([values(inputs), 1.0 - values(inputs)], 1)
        classes = tf.tile(tf.constant([["yes", "no"]]), [tf.shape(inputs)[0], 1])
        return {"scores": scores, "classes": classes}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(inputs):
        return {"outputs": values(inputs)}

    signatures = {
        "serving_default": sums, "read": read, "means": means, "single": single,
        "classify": classify, "regress": regress,
    }  # fmt: skip
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(folder), signatures=signatures)
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for name in ("classify", "regress"):
        method = f"tensorflow/serving/{name}"
        saved.meta_graphs[0].signature_def[name].method_name = method
    path.write_bytes(saved.SerializeToString())


@pytest.fixture(scope="session")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """publish(BASE, 3, scale=2.0) puts a version there by one rename, and returns its folder."""
    made: dict[float, Path] = {}

    def publish_version(base: Path, version: int, *, scale: float = 1.0) -> Path:
        if scale not in made:
            made[scale] = tmp_path_factory.mktemp("tiny") / "1"
            save_tiny(made[scale], scale)
        pending = base / f".pending-{version}"
        shutil.copytree(made[scale], pending)
        return pending.rename(base / str(version))

    return publish_version
