"""What processes that make and check exports see of ours: our modules, nothing that hides a fault.

subprocess.run([...], env=clean_environment(CI="true"))
with without_this_package():
    keras.saving.load_model(path)      # as where Keras is installed, and nothing of ours
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def module_path() -> list[str]:
    """Where modules are looked for, whatever the current folder is."""
    return [os.path.abspath(path) for path in sys.path]


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without GPU, cluster and XLA, with its module path.

    The trainer holds the memory of the GPUs there are, and most servers have none. XLA by
    environment would hide what a server without it does; TF_CONFIG would make a process wait
    for the other workers of a cluster.
    """
    kept = {n: v for n, v in os.environ.items() if n not in ("TF_XLA_FLAGS", "TF_CONFIG")}
    return kept | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(module_path()),
        **more,
    }


@contextlib.contextmanager
def without_this_package() -> Iterator[None]:
    """Inside, kerastrain cannot be imported, and Keras knows no class but its own."""
    import keras

    ours = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "kerastrain"}
    registered = dict(keras.saving.get_custom_objects())
    modules: dict[str, Any] = sys.modules
    try:
        for name in ours:
            del modules[name]
        modules["kerastrain"] = None  # By which Python refuses to import it.
        keras.saving.get_custom_objects().clear()
        yield
    finally:
        modules.update(ours)
        keras.saving.get_custom_objects().update(registered)
