"""Optimizers by name: Keras's own, with the options' learning rate.

model.compile(optimizer=build_optimizer(options), loss=…)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kerastrain.errors import OptionsError, suggestion
from kerastrain.options import TrainOptions

if TYPE_CHECKING:
    import keras


def build_optimizer(options: TrainOptions, *, default: str = "adam") -> keras.Optimizer:
    """The optimizer named by --optimizer (or `default`), at --learning_rate when given.

    Raises:
        OptionsError: Keras has no optimizer of that name.
    """
    import keras

    known = {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.Optimizer)
        and value not in (keras.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    name = options.optimizer or default
    if name.lower() not in known:
        raise OptionsError(
            f"--optimizer is '{name}'; expected one of {', '.join(sorted(known))}."
            f"{suggestion(name.lower(), known)}"
        )
    if options.learning_rate is None:
        return known[name.lower()]()
    return known[name.lower()](learning_rate=options.learning_rate)
