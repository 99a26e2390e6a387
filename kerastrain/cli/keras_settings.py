"""Keras's own settings, keras.json and KERAS_BACKEND, do not decide what a command trains.

    use_keras_defaults()      # before anything imports Keras

So the same command gives the same model on every machine. A recipe's file may change them.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import json
import logging
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from kerastrain.errors import KerastrainError

logger = logging.getLogger(__name__)

VARIABLE = "KERAS_BACKEND"
BACKEND = "tensorflow"
DEFAULTS = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}


def use_keras_defaults() -> None:
    """Whoever imports Keras gets it with its defaults; where the user has others, it is told."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, _KerasImport())


class _KerasImport(importlib.abc.MetaPathFinder):
    """Finds "keras" as everybody does; which import is the first to need it is not known."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        asked = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = BACKEND
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_with_defaults(module: ModuleType) -> None:
                try:
                    execute(module)
                except (ValueError, AttributeError) as error:
                    raise KerastrainError(
                        f"Keras cannot be imported: {error} Are its settings right, in "
                        "~/.keras/keras.json or in the folder KERAS_HOME?"
                    ) from error
                _set_defaults(module, asked)

            spec.loader.exec_module = execute_with_defaults  # type: ignore[method-assign]
        return spec


def _set_defaults(keras: ModuleType, backend: str | None) -> None:
    from keras.src.backend.config import keras_home

    file = Path(keras_home()).expanduser() / "keras.json"
    found = {"backend": BACKEND}
    with contextlib.suppress(OSError, ValueError):  # Keras does without it then, too.
        found |= json.loads(file.read_bytes())
    if backend:
        found["backend"] = backend
    lines = [] if found["backend"] == BACKEND else [f"backend={found['backend']}"]
    for name, default in DEFAULTS.items():
        value = getattr(keras.config, name)()
        getattr(keras.config, f"set_{name}")(default)
        lines += [] if value == default else [f"{name}={value}"]
    if lines:
        where = f"{VARIABLE} or {file}" if backend else file
        logger.warning(
            "Keras is set to %s (%s). kerastrain does not use that, but Keras's own defaults: "
            "backend=%s, %s.",
            ", ".join(lines),
            where,
            BACKEND,
            ", ".join(f"{name}={default}" for name, default in DEFAULTS.items()),
        )
