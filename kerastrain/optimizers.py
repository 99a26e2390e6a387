"""Optimizers by name, with their arguments: Keras's own, at the options' learning rate.

    model.compile(optimizer=build_optimizer(options), loss=…)
    --optimizer="sgd(momentum=0.9, nesterov=True)"
    --optimizer="adamw(weight_decay=0.1, global_clipnorm=1.0, use_ema=True, ema_momentum=0.999)"

Weight decay, gradient clipping and averaged weights (EMA, which are then what is evaluated,
kept and exported) are arguments that every optimizer of Keras takes.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from kerastrain.arguments import (
    COUNT,
    COUNT_OR_0,
    NOT_NEGATIVE,
    NUMBER,
    POSITIVE,
    SHARE,
    SHARE_BELOW_1,
    TEXTS,
    TRUTH,
    Expected,
)
from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import Call, make, parse_call, pointed
from kerastrain.options import AUTO, TrainOptions

if TYPE_CHECKING:
    import keras

# Said elsewhere: a second place would contradict the first.
ELSEWHERE = {
    "learning_rate": "--learning_rate",
    "loss_scale_factor": "--precision=mixed_float16, which scales the loss by itself",
}

# Keras looks at few of its arguments: a text for a number would fail in the first step only.
# Of any other argument the default says what it is.
EXPECTED = {
    **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"), POSITIVE),
    **dict.fromkeys(("weight_decay", "adam_weight_decay", "epsilon"), NOT_NEGATIVE),
    **dict.fromkeys(("beta_1", "beta_2", "adam_beta_1", "adam_beta_2", "rho"), SHARE_BELOW_1),
    **dict.fromkeys(("gradient_accumulation_steps", "ema_overwrite_frequency"), COUNT),
    "ema_momentum": SHARE,
    "ns_steps": COUNT,
    "warmup_steps": COUNT_OR_0,
    "exclude_layers": TEXTS,
}
# Those that None turns off, besides the ones whose default it is.
CAN_BE_NONE = ("weight_decay", "adam_weight_decay", "rms_rate")


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
    keywords = _checked(call, known[name], text)
    rate = options.learning_rate
    if rate is not None and rate != AUTO:
        keywords["learning_rate"] = float(rate)
    call = dataclasses.replace(call, keywords=keywords)
    return make(call, known[name], text=text, flag="optimizer")


def _checked(call: Call, kind: type, text: str) -> dict[str, Any]:
    """The arguments, those that Keras knows as the kind of value that it expects."""
    parameters = inspect.signature(kind).parameters
    keywords = dict(call.keywords)
    for name, value in call.keywords.items():
        default = parameters[name].default if name in parameters else None
        expected = EXPECTED.get(name) or _like(default)
        can_be_none = default is None or name in CAN_BE_NONE
        if expected is None or (value is None and can_be_none):
            continue
        try:
            expected.check(call.name, name, value)
        except OptionsError as error:
            says = str(error).removesuffix(".")
            raise pointed(text, "optimizer", call.positions[name], says) from None
        if isinstance(default, float):
            keywords[name] = float(value)  # Keras refuses momentum=0.
    return keywords


def _like(default: Any) -> Expected | None:
    """What a value must be to stand where this one stands by default; None: anything."""
    if isinstance(default, bool):
        return TRUTH
    return NUMBER if isinstance(default, (int, float)) else None


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
