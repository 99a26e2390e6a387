"""Optimizers by name, with their arguments: Keras's own, at the options' learning rate.

    model.compile(optimizer=build_optimizer(options), loss=…)
    --optimizer="sgd(momentum=0.9, nesterov=True)"
    --optimizer="adamw(weight_decay=0.1, global_clipnorm=1.0, use_ema=True, ema_momentum=0.999)"

Weight decay, gradient clipping and averaged weights (EMA, which are then what is evaluated,
kept and exported) are arguments that every optimizer of Keras takes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import make, parse_call, pointed
from kerastrain.options import AUTO, TrainOptions

if TYPE_CHECKING:
    import keras

# Said elsewhere: a second place would contradict the first.
ELSEWHERE = {
    "learning_rate": "--learning_rate",
    "loss_scale_factor": "--precision=mixed_float16, which scales the loss by itself",
}


def build_optimizer(options: TrainOptions, *, default: str = "adam") -> keras.Optimizer:
    """The optimizer that --optimizer (or `default`) says, at --learning_rate when given.

    Raises:
        OptionsError: Keras has no optimizer of that name, or it does not take the arguments.
    """
    text = options.optimizer or default
    call, known = parse_call(text, flag="optimizer"), _known()
    name = call.name.lower()
    if name not in known:
        raise OptionsError(
            f"--optimizer is '{call.name}'; expected one of {', '.join(sorted(known))}."
            f"{suggestion(name, known)}"
        )
    if call.arguments:
        says = f"arguments of {name} go by name, as in momentum=0.9; its rate by --learning_rate"
        raise pointed(text, "optimizer", 0, says)
    for argument, where in ELSEWHERE.items():
        if argument in call.keywords:
            says = f"{argument} is given by {where}"
            raise pointed(text, "optimizer", call.positions[argument], says)
    rate = options.learning_rate
    if rate is not None and rate != AUTO:
        call = dataclasses.replace(call, keywords={**call.keywords, "learning_rate": float(rate)})
    return make(call, known[name], text=text, flag="optimizer")


def _known() -> dict[str, Any]:
    import keras

    # Those that wrap others are made from objects, not from words.
    wrappers = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    return {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.Optimizer)
        and value.__name__ not in wrappers
    }
