"""Optimizers by name, with their arguments."""

import keras
import pytest

from kerastrain.errors import OptionsError
from kerastrain.optimizers import build_optimizer
from kerastrain.options import TrainOptions

NAMES = ["adam", "adamw", "sgd", "rmsprop", "nadam", "lion", "adafactor", "muon"]


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_is_found_by_its_name_in_any_case(name):
    for spelled in (name, name.upper()):
        optimizer = build_optimizer(TrainOptions(optimizer=spelled))
        assert type(optimizer).__name__.lower() == name


def test_without_a_name_it_is_the_default():
    assert isinstance(build_optimizer(TrainOptions()), keras.optimizers.Adam)
    assert isinstance(build_optimizer(TrainOptions(), default="sgd"), keras.optimizers.SGD)


def test_the_learning_rate_is_the_options_or_else_kerass_own():
    given = build_optimizer(TrainOptions(optimizer="sgd", learning_rate=0.25))
    assert float(given.learning_rate) == 0.25
    own = build_optimizer(TrainOptions(optimizer="sgd"))
    assert float(own.learning_rate) == float(keras.optimizers.SGD().learning_rate)


def test_arguments_are_handed_on():
    text = "sgd(momentum=0.9, nesterov=True, weight_decay=0.01, global_clipnorm=1.5)"
    optimizer = build_optimizer(TrainOptions(optimizer=text, learning_rate=0.5))
    config = optimizer.get_config()
    expected = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "global_clipnorm": 1.5}
    assert expected.items() <= config.items() and config["learning_rate"] == 0.5


def test_averaged_weights_are_an_argument_like_any_other():
    optimizer = build_optimizer(TrainOptions(optimizer="adam(use_ema=True, ema_momentum=0.9)"))
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(OptionsError) as raised:
        build_optimizer(TrainOptions(optimizer="rmsprob"))
    message = str(raised.value)
    assert "--optimizer is 'rmsprob'; expected one of" in message
    assert ", adam, " in message
    assert message.endswith("Did you mean 'rmsprop'?")


@pytest.mark.parametrize("name", ["optimizer", "lossscaleoptimizer", "multioptimizer"])
def test_what_is_no_optimizer_of_its_own_is_not_offered(name):
    with pytest.raises(OptionsError):
        build_optimizer(TrainOptions(optimizer=name))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sgd(momentun=0.9)", "Did you mean 'momentum'"),
        ("sgd(0.1)", "go by name"),
        ("sgd(learning_rate=0.1)", "learning_rate is given by --learning_rate"),
        ("adam(loss_scale_factor=8)", "--precision=mixed_float16"),
        ("sgd(momentum=2)", "momentum"),
        ("adam(clipnorm=1.0, clipvalue=1.0)", "adam: Only one of"),
    ],
)
def test_arguments_that_it_does_not_take_are_refused_with_the_place(text, says):
    with pytest.raises(OptionsError, match="--optimizer cannot be used") as error:
        build_optimizer(TrainOptions(optimizer=text))
    assert says in str(error.value) and "^" in str(error.value)
