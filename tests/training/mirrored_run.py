"""Trains on one device or on two logical CPUs and writes what came out; run by test_strategy."""

import json
import sys

import keras
import numpy as np
import small_runs as small
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Executor
from kerastrain.training.identity import describe_model
from kerastrain.training.state import TrainState
from kerastrain.training.steps import supervised_step
from kerastrain.training.strategy import make_strategy


def embedding() -> keras.Model:
    """Sparse gradients: each point looks up a vector by the sign of its first coordinate."""
    features = keras.Input((8,), name="features")
    rows = keras.ops.cast(features > 0, "int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(2, 4, embeddings_initializer="ones")(rows))
    model = keras.Model(features, keras.layers.Dense(3, kernel_initializer="ones")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.3), loss, metrics=["accuracy"])
    return model


MODELS = {
    "adam": lambda: small.classifier(optimizer=keras.optimizers.Adam(0.01)),
    "clipped": lambda: small.classifier(optimizer=keras.optimizers.SGD(0.5, global_clipnorm=0.3)),
    "embedding": embedding,
}


def main() -> None:
    name, optimizer, out = sys.argv[1:]
    devices = 2 if name == "mirrored" else 1
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    strategy = make_strategy(name)
    rows = small.blobs(202)
    with strategy.scope():
        model = MODELS[optimizer]()
        described = sorted(describe_model(model))
        state = TrainState(
            model, strategy=strategy, seed=0, batch=rows.take(np.arange(4)).structure()
        )
    executor = Executor(state, supervised_step, rows, batch_size=32, seed=0)
    losses = []
    for step in range(14):
        state.model.reset_metrics()
        executor.run(step, 1, jit=False)
        losses.append(float(state.model.get_metrics_result()["loss"]))
    state.average_replicas()
    odd = Examples(rows.inputs[:201], rows.targets[:201])
    metrics = Evaluator(state, odd, batch_size=1000)(jit=False)
    single = Evaluator(state, rows.take(np.arange(1)), batch_size=8)(jit=False)
    metrics["loss of a single row"] = single["loss"]
    weights = [w.tolist() for w in model.get_weights()]
    with open(out, "w") as file:
        found = {"losses": losses, "metrics": metrics, "weights": weights}
        json.dump({**found, "described": described}, file)


if __name__ == "__main__":
    main()
