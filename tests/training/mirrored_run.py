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
from kerastrain.training.state import TrainState
from kerastrain.training.steps import supervised_step
from kerastrain.training.strategy import make_strategy

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "clipped": lambda: keras.optimizers.SGD(0.5, global_clipnorm=0.3),
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
        model = small.classifier(optimizer=OPTIMIZERS[optimizer]())
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
    metrics = Evaluator(state, odd)(jit=False)
    weights = [w.tolist() for w in model.get_weights()]
    with open(out, "w") as file:
        json.dump({"losses": losses, "metrics": metrics, "weights": weights}, file)


if __name__ == "__main__":
    main()
