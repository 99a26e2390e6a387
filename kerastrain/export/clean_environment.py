"""What processes that make and check exports see of ours: our modules, nothing that hides a fault.

subprocess.run([...], env=clean_environment(CI="true"))
"""

from __future__ import annotations

import os
import sys


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
