"""Loads SavedModels, wherever they lie.

loaded = load_saved_model(base / "3")
"""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerastrain.workdir import without_patterns


def load_saved_model(folder: Path, **settings: Any) -> Any:
    """`tf.saved_model.load`, from folders with brackets in their names too.

    Raises whatever TensorFlow raises for what it cannot load.
    """
    with contextlib.ExitStack() as held:
        loaded = tf.saved_model.load(held.enter_context(without_patterns(folder)), **settings)
        # It may read a file of its assets whenever it is asked.
        weakref.finalize(loaded, held.pop_all().close)
    return loaded
