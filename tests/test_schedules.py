"""Learning-rate schedules: their values by hand, and whole runs with them."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here
from hypothesis import given
from hypothesis import strategies as st

from kerastrain import Recipe, TrainOptions
from kerastrain.errors import OptionsError, ResumeError
from kerastrain.objective import Objective
from kerastrain.run import run_recipe
from kerastrain.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Step,
    parse_schedule,
    plateau_callback,
    set_schedule,
)

RECIPE = """
import keras
import numpy as np
import kerastrain

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 250).astype(np.int32)
POINTS = (np.eye(3)[LABELS] * 2 + RNG.normal(size=(250, 3))).astype(np.float32)


def load(options):
    return kerastrain.Data(
        train=kerastrain.Examples(POINTS[:200], LABELS[:200]),
        validation=kerastrain.Examples(POINTS[200:], LABELS[200:]),
    )


def build(options, data):
    features = keras.Input((3,), name="features")
    x = keras.layers.Dense(8, activation="relu")(features)
    x = keras.layers.Dropout(0.1)(x)
    net = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(kerastrain.build_optimizer(options), loss, metrics=["accuracy"])
    return net


RECIPE = kerastrain.Recipe(load, build, defaults={"batch_size": 32, "learning_rate": 0.05})
"""
EPOCH = 7


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    check_here(monkeypatch)
    path = tmp_path / "points.py"
    path.write_text(RECIPE)
    return path


def train(recipe, workdir, **options):
    settings = {"max_epochs": 6, "stop": "never", "jit": "off", **options}
    return run_recipe(TrainOptions(recipe=str(recipe), workdir=str(workdir), **settings))


def rates(schedule, steps, *, rate=1.0, steps_per_epoch=10):
    """The learning rate of the given steps, by Keras."""
    made = schedule.build(rate, steps_per_epoch)
    return [float(made(step)) for step in steps]


def test_cosine_falls_along_half_a_cosine_to_its_end():
    found = rates(Cosine(epochs=4), [0, 10, 20, 40, 99])
    expected = [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0, 0]
    assert found == pytest.approx(expected, abs=1e-6)
    assert rates(Cosine(epochs=4, end=0.1), [40]) == pytest.approx([0.1])


def test_a_warm_up_rises_linearly_and_is_part_of_the_length():
    schedule = Cosine(epochs=4.9, warmup_epochs=1)
    # The tenth step is the first with the whole rate; half of the other 40 are then left.
    found = rates(schedule, [0, 4, 9, 29, 49])
    assert found == pytest.approx([0.1, 0.5, 1, 0.5, 0], abs=1e-6)
    assert rates(Cosine(steps=50, warmup_steps=10), [4]) == pytest.approx([0.5])
    assert rates(Cosine(steps=50, warmup_steps=1), [0]) == [1]


def test_the_shorter_of_two_lengths_counts():
    assert rates(Cosine(epochs=4, steps=20), [20]) == pytest.approx([0], abs=1e-6)


def test_one_cycle_rises_and_falls_far_below_its_start():
    schedule = OneCycle(epochs=10, rise=0.3, start=0.1, end=0.001)
    found = rates(schedule, [0, 15, 30, 65, 100])
    assert found == pytest.approx([0.1, 0.55, 1, 0.5005, 0.001], rel=1e-5)


def test_exponential_decays_by_its_rate_in_an_epoch():
    assert rates(Exponential(rate=0.5), [0, 5, 10, 20]) == pytest.approx([1, 0.5**0.5, 0.5, 0.25])
    stairs = Exponential(rate=0.5, every_epochs=2, staircase=True)
    assert rates(stairs, [0, 19, 20, 40]) == pytest.approx([1, 1, 0.5, 0.25])
    assert rates(Exponential(rate=0.5, every_steps=4), [8]) == pytest.approx([0.25])


def test_a_step_is_taken_with_the_first_step_of_its_epoch():
    schedule = Step(epochs=[2, 3])
    assert rates(schedule, [0, 19, 20, 29, 30]) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates(Step(factor=0.5, steps=[4]), [3, 4]) == pytest.approx([1, 0.5])


def test_steps_are_taken_again_and_again():
    found = rates(Step(every_epochs=2), [0, 19, 20, 39, 40])
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates(Step(factor=0.5, every_steps=3), [2, 3, 6]) == pytest.approx([1, 0.5, 0.25])


@pytest.mark.parametrize(
    "text", ["cosine(epochs=4, warmup_steps=3)", "one_cycle(epochs=4)", "exponential",
             "exponential(every_epochs=2, staircase=True)", "step(epochs=[1, 2.5])"]
)  # fmt: skip
def test_a_compiled_step_sees_the_same_rates(text):
    schedule = parse_schedule(text).build(0.25, 10)
    plain = [float(schedule(step)) for step in range(45)]
    for jit in (False, True):
        compiled = tf.function(lambda step: schedule(step), jit_compile=jit)
        found = [float(compiled(tf.constant(step, tf.int64))) for step in range(45)]
        assert found == pytest.approx(plain, rel=1e-5, abs=1e-8)


def test_a_plateau_is_kerass_own_callback_on_the_objective():
    callback = plateau_callback(Plateau(factor=0.5, patience=2), Objective("val_auc", "max"))
    assert isinstance(callback, keras.callbacks.ReduceLROnPlateau)
    assert (callback.monitor, callback.mode, callback.factor) == ("val_auc", "max", 0.5)
    assert plateau_callback(Constant(), Objective("val_loss", "min")) is None


def test_the_rate_of_the_optimizer_is_where_a_schedule_begins():
    optimizer = keras.optimizers.SGD(0.25)
    set_schedule(optimizer, Exponential(rate=0.5), rate=None, steps_per_epoch=10)
    assert float(optimizer.learning_rate) == 0.25
    optimizer.iterations.assign(10)
    assert float(optimizer.learning_rate) == 0.125


def test_loss_scaling_does_not_keep_the_schedule_from_the_optimizer():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25))
    set_schedule(optimizer, Exponential(rate=0.5), rate=0.5, steps_per_epoch=10)
    assert float(optimizer.inner_optimizer.learning_rate) == 0.5


def test_an_optimizer_with_a_schedule_of_its_own_needs_a_rate_to_begin_with():
    def own():
        return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))

    with pytest.raises(OptionsError, match="Give --learning_rate too"):
        set_schedule(own(), Exponential(), rate=None, steps_per_epoch=10)
    with pytest.raises(OptionsError, match="cannot make it constant"):
        set_schedule(own(), Constant(), rate=0.1, steps_per_epoch=10)
    optimizer = own()
    set_schedule(optimizer, Step(epochs=[1]), rate=0.3, steps_per_epoch=10)
    assert float(optimizer.learning_rate) == pytest.approx(0.3)


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(OptionsError, match="warm-up of 50 steps in a run of 40"):
        Cosine(epochs=4, warmup_epochs=5).build(1.0, 10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosin", "Did you mean 'cosine'"),
        ("cosine(warmup=3)", "cosine has the arguments"),
        ("cosine(warmup_epochs=1, warmup_steps=3)", "expected one of them"),
        ("cosine(end=2)", "end=2"),
        ("cosine(steps=2.5)", "steps=2.5; expected a whole number"),
        ("cosine(end=None)", "end=None"),
        ("exponential(rate=0)", "rate=0; expected a number above 0, at most 1"),
        ("exponential(rate=1e999)", "rate=inf"),
        ("exponential(staircase=yes)", "True or False"),
        ("exponential(every_epochs=1, every_steps=5)", "expected one"),
        ("step", "epochs or steps"),
        ("step(epochs=[30, 20])", "rising numbers"),
        ("step(epochs=30)", "rising numbers"),
        ("step(epochs=[])", "rising numbers"),
        ("step(epochs=[True])", "rising numbers"),
        ("step(steps=[2.5])", "rising whole numbers"),
        ("step(epochs=[1], every_steps=3)", "epochs and every_steps; expected one"),
        ("one_cycle(rise=1)", "rise=1"),
        ("plateau(patience=-1)", "patience=-1"),
        ("plateau(factor='x')", "factor='x'"),
        ("constant(3)", "too many positional"),
        ("cosine or step", "one name is expected"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_place(text, says):
    with pytest.raises(OptionsError, match="--schedule cannot be used") as error:
        parse_schedule(text)
    assert says in str(error.value) and "^" in str(error.value)


@given(
    st.sampled_from(
        [Constant(), Cosine(), Cosine(epochs=3.5, end=0.1), OneCycle(steps=10), Exponential(0.5),
         Exponential(every_steps=7, staircase=True), Step(epochs=[1, 2.5]), Step(every_epochs=3),
         Plateau(patience=1)]
    )
)  # fmt: skip
def test_what_is_written_is_read_back(schedule):
    assert parse_schedule(str(schedule)) == schedule


def test_a_schedule_that_depends_on_the_runs_length_says_it():
    def resolved(**options):
        recipe = Recipe(load_data=None, build_model=None)
        return recipe.resolve(TrainOptions(**options)).schedule

    assert resolved(schedule="cosine", max_epochs=30) == "cosine(epochs=30)"
    assert resolved(schedule="one_cycle", max_epochs=3, max_steps=50) == (
        "one_cycle(epochs=3, steps=50)"
    )
    assert resolved(schedule="cosine(epochs=9)", max_epochs=30) == "cosine(epochs=9)"
    assert resolved(schedule="exponential", max_epochs=30) == "exponential"
    assert resolved(max_epochs=30) is None


def test_every_schedule_is_explained():
    assert all(kind.__doc__ for kind in SCHEDULES.values())


def test_a_run_follows_its_schedule(recipe, tmp_path):
    train(recipe, tmp_path / "run", schedule="step(factor=0.5, epochs=[2])", max_epochs=4)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = map(json.loads, lines)
    rates = [each["learning_rate"] for each in records if each["kind"] == "evaluation"]
    assert rates == pytest.approx([0.05, 0.025, 0.025, 0.025])


def test_more_epochs_would_be_another_cosine_and_are_refused(recipe, tmp_path, caplog):
    train(recipe, tmp_path / "run", schedule="cosine", max_epochs=2)
    with pytest.raises(ResumeError, match=r"'cosine\(epochs=2\)' recorded, 'cosine\(epochs=3\)'"):
        train(recipe, tmp_path / "run", schedule="cosine", max_epochs=3)
    longer = train(recipe, tmp_path / "run", schedule="cosine(epochs=2)", max_epochs=3)
    assert longer.step == 3 * EPOCH
    assert "learning rate of 0 at step 14, and the run at step 21: nothing is" in caplog.text


class Crash(Exception):
    pass


@pytest.mark.parametrize(
    "schedule",
    ["plateau(factor=0.5, patience=1)", pytest.param("one_cycle", marks=pytest.mark.slow)],
)
def test_a_schedule_goes_on_where_it_was_together_with_early_stopping(
    recipe, tmp_path, monkeypatch, schedule
):
    settings = {"schedule": schedule, "stop": "patience(7)", "max_epochs": 25,
                "checkpoint_every": "1epochs", "learning_rate": 0.3}  # fmt: skip
    whole = train(recipe, tmp_path / "whole", **settings)
    plain, made = keras.callbacks.CallbackList.on_epoch_begin, []

    def crashing(self, epoch, logs=None):
        plain(self, epoch, logs)
        if epoch == 4 and not made:
            made.append(epoch)
            raise Crash

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_epoch_begin", crashing)
    with pytest.raises(Crash):
        train(recipe, tmp_path / "run", **settings)
    resumed = train(recipe, tmp_path / "run", **settings)
    assert (resumed.history, resumed.stopped) == (whole.history, whole.stopped)
    if schedule.startswith("plateau"):
        rates = [record["learning_rate"] for record in whole.history]
        assert len(set(rates)) > 2 and rates == sorted(rates, reverse=True)


def test_the_whole_data_set_in_each_step_is_gradient_descent(recipe, tmp_path):
    result = train(recipe, tmp_path / "run", batch_size="all", max_epochs=5, optimizer="sgd")
    assert result.step == 5
    again = train(recipe, tmp_path / "again", batch_size=200, max_epochs=5, optimizer="sgd")
    assert again.history == result.history


def test_a_recipe_that_reckons_with_the_batch_size_gets_a_number(recipe, tmp_path):
    asked = recipe.read_text().replace(
        "    features = ", "    assert options.batch_size == 200\n    features = "
    )
    recipe.write_text(asked)
    assert train(recipe, tmp_path / "run", batch_size="all", max_epochs=1).step == 1


def test_averaged_weights_are_what_is_evaluated_kept_and_exported(recipe, tmp_path):
    plain = {"optimizer": "sgd", "learning_rate": 0.5, "max_epochs": 4}
    trained = train(recipe, tmp_path / "plain", **plain)
    averaged = train(
        recipe, tmp_path / "ema", **{**plain, "optimizer": "sgd(use_ema=True, ema_momentum=0.98)"}
    )
    # The training itself is the same, so its running loss is; what is measured is the average.
    assert [r["loss"] for r in averaged.history] == [r["loss"] for r in trained.history]
    assert averaged.history[-1]["val_loss"] != trained.history[-1]["val_loss"]
    model = keras.models.load_model(averaged.export / "model.keras")
    namespace = {}
    exec(RECIPE, namespace)
    data = namespace["load"](None).validation
    answers = np.asarray(model(data.inputs))
    loss = keras.losses.sparse_categorical_crossentropy(data.targets, answers, from_logits=True)
    assert float(np.mean(loss)) == pytest.approx(averaged.best["value"], rel=1e-5)
