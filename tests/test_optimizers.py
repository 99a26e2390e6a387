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


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(OptionsError) as raised:
        build_optimizer(TrainOptions(optimizer="rmsprob"))
    message = str(raised.value)
    assert "--optimizer is 'rmsprob'; expected one of" in message
    assert ", adam, " in message
    assert message.endswith("Did you mean 'rmsprop'?")


@pytest.mark.parametrize("name", ["optimizer", "lossscaleoptimizer"])
def test_what_is_no_optimizer_of_its_own_is_not_offered(name):
    with pytest.raises(OptionsError):
        build_optimizer(TrainOptions(optimizer=name))
