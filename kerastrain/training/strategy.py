"""The devices a run uses: a tf.distribute.Strategy by name.

strategy = make_strategy("auto")    # mirrored with two GPUs or more, else one device
with strategy.scope():
    model = build_model()
"""

from __future__ import annotations

import tensorflow as tf

from kerastrain.errors import OptionsError


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy for --strategy=auto|one_device|mirrored.

    Mirrored takes all GPUs, or all logical CPUs when there is no GPU.

    Raises:
        OptionsError: an unknown name, or mirrored with a single device.
    """
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "auto":
        name = "mirrored" if len(gpus) >= 2 else "one_device"
    if name == "one_device":
        # TensorFlow's default strategy: the same bytes as OneDeviceStrategy (measured), and a
        # model made before, outside any scope, belongs to it.
        return tf.distribute.get_strategy()
    if name == "mirrored":
        if len(devices) < 2:
            raise OptionsError(
                f"--strategy=mirrored needs two devices or more; there is only {devices[0].name}. "
                "Use --strategy=one_device."
            )
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    raise OptionsError(f"--strategy is '{name}'; expected auto, one_device or mirrored.")


def first_device(strategy: tf.distribute.Strategy) -> str:
    """The name of the device that holds the examples: of the first replica."""
    if strategy.num_replicas_in_sync > 1:
        return strategy.extended.worker_devices[0]
    gpus = tf.config.list_logical_devices("GPU")
    return (gpus or tf.config.list_logical_devices("CPU"))[0].name


def replica_values(variable: tf.Variable) -> list[tf.Variable]:
    """The plain variable on every replica; the variable itself when it is not distributed."""
    return list(getattr(variable, "values", None) or [variable])
