"""What a model and a step are, and how differences are told."""

import json
import types

import keras
import pytest
from small_runs import classifier

from kerastrain.training.identity import (
    describe_code,
    describe_model,
    is_other_code,
    model_differences,
)


def recorded(model):
    return json.loads(json.dumps(describe_model(model)))


def network(*layers, compiled="adam", loss="mse"):
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, name="out")])
    model.compile(compiled, loss)
    return model


def dense(units=64, **settings):
    return keras.layers.Dense(units, **settings)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([dense(64)], [dense(32)], ["layer dense (2 of 3): units: 64 recorded, 32 now"]),
        (
            [dense(), keras.layers.Dropout(0.1)],
            [dense(), keras.layers.Dropout(0.4)],
            ["layer dropout (3 of 4): rate: 0.1 recorded, 0.4 now"],
        ),
        (
            [dense(name="a"), dense(name="b")],
            [dense(name="a"), keras.layers.LayerNormalization(name="n"), dense(name="b")],
            ["layer n (LayerNormalization) is new"],
        ),
        ([dense(name="a"), dense(name="b")], [dense(name="b")], ["layer a (Dense) is gone"]),
        (
            [dense(activation="relu")],
            [dense(activation="tanh", kernel_regularizer=keras.regularizers.L2(0.5))],
            [
                "layer dense (2 of 3): activation: relu recorded, tanh now",
                "layer dense (2 of 3): kernel_regularizer class_name: None recorded, L2 now",
                "layer dense (2 of 3): kernel_regularizer l2: None recorded, 0.5 now",
            ],
        ),
    ],
)
def test_it_is_told_which_layer_differs_in_what(before, after, told):
    old = recorded(network(*before))
    assert not model_differences(old, describe_model(network(*before)))
    assert model_differences(old, describe_model(network(*after))) == told


def test_many_differences_are_counted():
    deep = recorded(network(*(dense(8) for _ in range(100))))
    lines = model_differences(deep, describe_model(network(*(dense(9) for _ in range(100)))))
    assert len(lines) == 9 and lines[-1] == "and 92 more"


def test_the_same_layers_connected_otherwise_are_another_model():
    def model(*, skips):
        inputs = keras.Input((3,))
        a, b = keras.layers.Dense(3, name="a"), keras.layers.Dense(3, name="b")
        hidden = a(inputs)
        outputs = keras.layers.Add()([hidden, b(inputs if skips else hidden)])
        made = keras.Model(inputs, outputs)
        made.compile("adam", "mse")
        return made

    differences = model_differences(recorded(model(skips=True)), describe_model(model(skips=False)))
    assert differences == ["the layers are the same, but connected otherwise"]


def test_optimizers_are_compared_however_they_were_given():
    old = recorded(network())
    assert not model_differences(old, describe_model(network(compiled=keras.optimizers.Adam())))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for other, told in [
        (keras.optimizers.Adam(0.5), "optimizer learning_rate: 0.001 recorded, 0.5 now"),
        (keras.optimizers.Adam(clipnorm=1.0), "optimizer clipnorm: None recorded, 1.0 now"),
        (keras.optimizers.Adam(schedule), "learning_rate decay_rate: None recorded, 0.9 now"),
        ("sgd", "optimizer class_name: Adam recorded, SGD now"),
    ]:
        assert told in str(model_differences(old, describe_model(network(compiled=other))))


def test_the_learning_rate_of_a_trained_model_may_be_where_the_run_left_it():
    model = classifier(optimizer=keras.optimizers.Adam(0.01))
    old = recorded(model)
    model.optimizer.iterations.assign(5)
    model.optimizer.learning_rate = 0.0025
    now = describe_model(model)
    assert not model_differences(old, now)
    assert not model_differences(old, now, rate_at_end=0.0024999999441206455)
    assert model_differences(old, now, rate_at_end=0.01) == [
        "optimizer learning_rate: 0.01 recorded, 0.0025 now"
    ]


def test_a_record_of_an_earlier_version_is_compared_in_what_it_holds():
    old = recorded(network(dense()))
    earlier = {n: v for n, v in old.items() if n.startswith(("optimizer", "loss"))}
    earlier |= {"layers": old["layers"]}
    del earlier["loss_weights"]
    assert not model_differences(earlier, describe_model(network(dense())))
    assert "layers: " in str(model_differences(earlier, describe_model(network(dense(3)))))
    faster = network(dense(), compiled=keras.optimizers.Adam(0.5))
    assert model_differences(earlier, describe_model(faster)) == [
        "optimizer learning_rate: 0.001 recorded, 0.5 now"
    ]


FACTOR = 2.0


def scaled(x):
    return x * FACTOR


def with_setting(factor):
    def step(x):
        return scaled(x) + factor

    return step


def commented(factor):
    def step(x):
        """The same, explained."""
        # Indeed.
        return scaled(x) + factor

    return step


def test_code_is_known_by_what_it_does(monkeypatch):
    first = describe_code(with_setting(1.0))
    assert not is_other_code(first, describe_code(with_setting(1.0)))
    assert is_other_code(first, describe_code(with_setting(2.0)))
    assert is_other_code(first, describe_code(lambda x: x))
    comments = describe_code(commented(1.0)), describe_code(with_setting(1.0))
    assert not is_other_code(*comments)
    assert not is_other_code("3.9 0123", first)  # They cannot be compared.
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert is_other_code(first, describe_code(with_setting(1.0)))


def test_code_of_other_modules_of_ones_own_counts_too(monkeypatch):
    helpers = types.ModuleType("helpers")
    monkeypatch.setitem(globals(), "helpers", helpers)

    def step(x):
        return helpers.scale(x)

    found = []
    for factor in (1.0, 1.0, 2.0):
        exec(f"def scale(x):\n    return x * {factor}", vars(helpers))
        found.append(describe_code(step))
    assert not is_other_code(*found[:2]) and is_other_code(*found[1:])


def test_the_code_of_ones_own_loss_and_layers_is_part_of_a_model():
    def loss(y, predictions):
        return keras.ops.mean(keras.ops.abs(y - predictions)) * FACTOR

    old = recorded(network(loss=loss))
    assert not model_differences(old, describe_model(network(loss=loss)))

    def loss(y, predictions):
        return keras.ops.mean(keras.ops.square(y - predictions))

    (line,) = model_differences(old, describe_model(network(loss=loss)))
    assert "loss: its code, or a value that it uses, was changed" in line
