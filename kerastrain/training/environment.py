"""What the bytes of a run depend on besides its options; remembered, and checked on resume.

    environment = describe_environment(replicas=1)
    lines = environment_differences(recorded, environment)   # [] when exact resume is possible

The same program gives the same bytes only with the same number of threads,
versions, processor model and replicas (measured; see BUILD_NOTES.md).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

# Each was seen to change the bytes of a training step, or is known to on a GPU.
VARIABLES = ("TF_XLA_FLAGS", "XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "NVIDIA_TF32_OVERRIDE")


def describe_environment(*, replicas: int) -> dict[str, Any]:
    """Versions, processor, threads, devices, Keras's settings: plain values for JSON."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads()
        or available_cores(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads()
        or available_cores(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "replicas": replicas,
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "op_determinism": is_op_determinism_enabled(),
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "auto_jit": tf.config.optimizer.get_jit() or "off",
        "graph_optimizer": tf.config.optimizer.get_experimental_options(),
        **{name: os.environ.get(name, "not set") for name in VARIABLES},
    }


# Recorded for people, but not what the bytes of a training step depend on.
INFORMATIVE = ("python", "numpy")


def environment_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "tensorflow: 2.21.0 recorded, 2.22.0 now" for all that can change the bytes.

    What an earlier version of this package did not record cannot be compared.
    """
    return [
        f"{name}: {recorded[name]} recorded, {now.get(name)} now"
        for name in sorted(recorded.keys() - set(INFORMATIVE))
        if recorded[name] != now.get(name)
    ]


def set_threads(recorded: Mapping[str, Any] | None) -> None:
    """Fixes the number of threads: the recorded one on resume, else one per available core.

    Has no effect, and says nothing, once TensorFlow has started in this process (in
    somebody's notebook): the number in use is then what is recorded and compared.
    """
    cores = available_cores()
    intra = int((recorded or {}).get("intra_op_threads", cores))
    inter = int((recorded or {}).get("inter_op_threads", cores))
    if tf.config.threading.get_intra_op_parallelism_threads() == intra:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra)
        tf.config.threading.set_inter_op_parallelism_threads(inter)
    except RuntimeError:
        return  # TensorFlow has started: see the docstring.


def available_cores() -> int:
    """Processor cores that this process may use (a container's, a pinned process's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        # Not Linux: the general name has to do.
        return platform.processor()
    return platform.processor()
