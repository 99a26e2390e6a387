"""Keeps TensorFlow's remarks off the user's terminal while a model is saved, loaded, asked.

    with quiet_tensorflow():
        tf.saved_model.save(…)    # without "INFO:tensorflow:Assets written to: …"

Among them are warnings that an input called "hours-per-week" is no Python
identifier, once for each name: true, harmless, and nothing a user can act on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Shows nothing below an error from TensorFlow's Python side."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
