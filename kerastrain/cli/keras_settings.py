"""Keras's own settings, keras.json and KERAS_BACKEND, do not decide what a command trains.

    use_keras_defaults()      # before anything imports Keras

So the same command gives the same model on every machine. A recipe's file may change them.
"""

from __future__ import annotations

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
        asked, os.environ[VARIABLE] = os.environ.get(VARIABLE), BACKEND
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
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        found = {}  # Keras does without it, too.
    if backend:
        found["backend"] = backend
    others = []
    for name, default in {"backend": BACKEND, **DEFAULTS}.items():
        if name in DEFAULTS:
            getattr(keras.config, f"set_{name}")(default)
        if found.get(name, default) != default:
            others.append(f"{name}={found[name]} (here {default})")
    if others:
        where = f"{VARIABLE} and {file}" if backend else file
        logger.warning("Other settings of Keras are not used: %s; by %s.", ", ".join(others), where)
