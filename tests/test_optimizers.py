"""Optimizers by name, with their arguments."""

import inspect
from unittest.mock import ANY

import keras
import pytest
import small_runs as small

from kerastrain.errors import OptionsError
from kerastrain.expression import Call
from kerastrain.optimizers import build_optimizer
from kerastrain.options import TrainOptions
from kerastrain.schedules import parse_schedule, set_schedule
from kerastrain.training.evaluation import Evaluator

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


def test_a_whole_number_is_a_number():
    optimizer = build_optimizer(TrainOptions(optimizer="sgd(momentum=0, clipnorm=1)"))
    assert (optimizer.momentum, optimizer.clipnorm) == (0, 1)


def test_whatever_keras_has_takes_its_own_defaults():
    kinds = [kind for kind in vars(keras.optimizers).values() if isinstance(kind, type)]
    wrappers = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    for kind in kinds:
        if not issubclass(kind, keras.Optimizer) or kind.__name__ in wrappers:
            continue
        config = kind().get_config()
        given = {
            name: parameter.default
            for name, parameter in inspect.signature(kind).parameters.items()
            if name in config and name not in ("learning_rate", "loss_scale_factor", "name")
        }
        call = Call(kind.__name__, (), given)
        assert build_optimizer(TrainOptions(optimizer=str(call))).get_config() == {
            **config, "name": ANY,
        }  # fmt: skip


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
        ("adam(beta_1=high)", "beta_1='high'; expected a number"),
        ("adam(beta_2=1)", "beta_2=1; expected a number from 0 to below 1"),
        ("adam(beta_1=None)", "beta_1=None"),
        ("adam(clipnorm=0)", "expected a number above 0"),
        ("adam(weight_decay=-1)", "at least 0"),
        ("adam(use_ema=yes)", "True or False"),
        ("adam(gradient_accumulation_steps=2.5)", "a whole number"),
        ("muon(exclude_layers=logits)", "a list of texts"),
    ],
)
def test_arguments_that_it_does_not_take_are_refused_with_the_place(text, says):
    with pytest.raises(OptionsError, match="--optimizer cannot be used") as error:
        build_optimizer(TrainOptions(optimizer=text))
    assert says in str(error.value) and "^" in str(error.value)


@pytest.mark.parametrize(
    "text", ["lion", "muon", "rmsprop", "ftrl", "adamw(weight_decay=0.1, global_clipnorm=1)"]
)
def test_kerass_optimizers_learn_in_a_compiled_step(text):
    optimizer = build_optimizer(TrainOptions(optimizer=text, learning_rate=0.02))
    schedule = parse_schedule("cosine(steps=70, warmup_steps=5)")
    set_schedule(optimizer, schedule, rate=0.02, steps_per_epoch=7)
    state, executor = small.executor_of(optimizer=optimizer)
    evaluate = Evaluator(state, small.blobs(), batch_size=100)
    before = evaluate(jit=False)
    assert executor.run(0, 70, jit=False) is None
    assert evaluate(jit=False)["loss"] < 0.9 * before["loss"]
