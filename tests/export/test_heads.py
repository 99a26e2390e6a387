from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.errors import ExportError
from kerastrain.export.heads import Head, choose_head, infer_task, loss_takes_logits

LOGITS = np.array([[0.0, 2.0, -1.0], [3.0, 0.5, 1.0]], np.float32)
PROBABILITIES = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]], np.float32)


def compiled(loss, outputs=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs)])
    model.compile(loss=loss)
    return model


def data(task=None):
    return Data(train=Examples(np.zeros((2, 4), np.float32), np.zeros(2)), task=task)


def test_logits_become_probabilities_logits_and_label():
    model = compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    answers = choose_head(model, data(Classification((5, 6, 7))), LOGITS).answers(LOGITS)
    assert set(answers) == {"probabilities", "logits", "label"}
    np.testing.assert_allclose(answers["probabilities"], tf.nn.softmax(LOGITS))
    assert answers["label"].dtype == tf.int64
    assert answers["label"].numpy().tolist() == [6, 5]


def test_probabilities_go_out_as_they_are_without_logits():
    model = compiled("sparse_categorical_crossentropy")
    head = choose_head(model, data(Classification(("a", "b", "c"))), PROBABILITIES)
    answers = head.answers(PROBABILITIES)
    assert set(answers) == {"probabilities", "label"}
    np.testing.assert_array_equal(answers["probabilities"], PROBABILITIES)
    assert answers["label"].numpy().tolist() == [b"b", b"a"]


def test_a_single_logit_becomes_two_probabilities_that_agree_with_the_logits():
    model = compiled(keras.losses.BinaryCrossentropy(from_logits=True), outputs=1)
    output = np.array([[-1.0], [2.0]], np.float32)
    answers = choose_head(model, data(Classification(("no", "yes"))), output).answers(output)
    expected = 1 / (1 + np.exp(-output[:, 0]))
    np.testing.assert_allclose(answers["probabilities"][:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(answers["logits"]), answers["probabilities"])
    assert answers["label"].numpy().tolist() == [b"no", b"yes"]


@pytest.mark.parametrize("shape", [(2, 1), (2,)])
def test_a_sigmoid_becomes_two_probabilities(shape):
    model = compiled("binary_crossentropy", outputs=1)
    output = np.array([0.25, 0.75], np.float32).reshape(shape)
    answers = choose_head(model, data(Classification((0, 1))), output).answers(output)
    np.testing.assert_allclose(answers["probabilities"], [[0.75, 0.25], [0.25, 0.75]])
    assert answers["label"].numpy().tolist() == [0, 1]


def test_regression_answers_one_number_a_row_and_keeps_several():
    head = Head(Regression("price"))
    assert head.answers(np.ones((5, 1), np.float32))["prediction"].shape == (5,)
    assert head.answers(np.ones((5,), np.float32))["prediction"].shape == (5,)
    assert head.answers(np.ones((5, 2), np.float32))["prediction"].shape == (5, 2)


def test_half_precision_goes_out_as_float32():
    answers = Head(Regression()).answers(tf.ones((2, 1), tf.bfloat16))
    assert answers["prediction"].dtype == tf.float32


def test_outputs_without_a_task_keep_their_names():
    model = compiled("mse")
    assert choose_head(model, data(), LOGITS).names == ("output",)
    outputs = {"speed": LOGITS, "angle": PROBABILITIES}
    answers = choose_head(model, data(), outputs).answers(outputs)
    np.testing.assert_array_equal(answers["speed"], LOGITS)
    np.testing.assert_array_equal(answers["angle"], PROBABILITIES)


def test_outputs_of_a_functional_model_have_the_names_of_their_layers():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("speed", "angle")]
    model = keras.Model(inputs, outputs)
    assert choose_head(model, data(), [LOGITS, LOGITS]).names == ("speed", "angle")


@pytest.mark.parametrize(
    ("loss", "output", "classes"),
    [
        ("sparse_categorical_crossentropy", LOGITS, (0, 1, 2)),
        (keras.losses.CategoricalCrossentropy(from_logits=True), LOGITS, (0, 1, 2)),
        ("binary_crossentropy", LOGITS[:, :1], (0, 1)),
        ("bce", LOGITS[:, :1], (0, 1)),
    ],
)
def test_the_loss_tells_that_classes_are_predicted(loss, output, classes):
    assert infer_task(compiled(loss), [output]) == Classification(classes)


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("mse", LOGITS),
        ("binary_crossentropy", LOGITS),  # several labels at a time
        ("sparse_categorical_crossentropy", np.zeros((2, 8, 8, 3), np.float32)),  # segmentation
    ],
)
def test_other_losses_do_not_tell(loss, output):
    assert infer_task(compiled(loss), [output]) is None


def test_whether_a_loss_takes_logits():
    assert loss_takes_logits(keras.losses.BinaryCrossentropy(from_logits=True)) is True
    assert loss_takes_logits(keras.losses.BinaryCrossentropy()) is False
    assert loss_takes_logits(keras.losses.sparse_categorical_crossentropy) is False
    partial = functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True)
    assert loss_takes_logits(partial) is True
    assert loss_takes_logits(lambda y, p: p) is None


def test_for_a_loss_of_the_users_own_the_numbers_tell():
    model = compiled(lambda y, p: p[:, 0])
    task = Classification((0, 1, 2))
    assert choose_head(model, data(task), LOGITS).gives_logits
    assert not choose_head(model, data(task), PROBABILITIES).gives_logits


def test_a_forgotten_from_logits_is_named():
    model = compiled("sparse_categorical_crossentropy")
    with pytest.raises(ExportError, match="from_logits=True"):
        choose_head(model, data(Classification((0, 1, 2))), LOGITS)


def test_an_output_that_does_not_fit_the_classes_is_named_with_both_shapes():
    model = compiled("sparse_categorical_crossentropy")
    with pytest.raises(ExportError, match=r"\[batch, 3\]; 4 classes"):
        choose_head(model, data(Classification((0, 1, 2, 3))), PROBABILITIES)


def test_two_outputs_for_one_task_are_refused():
    with pytest.raises(ExportError, match="2 outputs"):
        choose_head(compiled("mse"), data(Regression()), [LOGITS, LOGITS])


# Quantiles.

CROSSED = np.array([[3.0, 1.0, 2.0], [-1.0, -1.0, -5.0]], np.float32)


def test_quantiles_rise_and_the_one_nearest_the_median_is_the_prediction():
    answers = Head(Regression("price", (0.1, 0.5, 0.9))).answers(CROSSED)
    assert set(answers) == {"prediction", "quantiles"}
    np.testing.assert_array_equal(answers["quantiles"], [[1, 2, 3], [-5, -1, -1]])
    np.testing.assert_array_equal(answers["prediction"], [2, -1])


@pytest.mark.parametrize(
    ("levels", "middle"),
    [((0.9,), 0), ((0.1, 0.9), 0), ((0.1, 0.45, 0.6), 1), ((0.7, 0.8, 0.9), 0), ((0.1, 0.2), 1)],
)
def test_without_a_median_the_nearest_quantile_is_the_prediction(levels, middle):
    output = np.array([[1.0, 2.0, 3.0][: len(levels)]], np.float32)
    answers = Head(Regression("price", levels)).answers(output)
    assert answers["prediction"].numpy().tolist() == [middle + 1.0]
    assert answers["quantiles"].shape == (1, len(levels))


def test_quantiles_in_half_precision_go_out_as_float32():
    answers = Head(Regression("price", (0.1, 0.9))).answers(tf.ones((2, 2), tf.bfloat16))
    assert {answer.dtype for answer in answers.values()} == {tf.float32}


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (2,), (2, 3, 1)])
def test_an_output_that_does_not_fit_the_quantiles_is_named(shape):
    task = Regression("price", (0.1, 0.5, 0.9))
    with pytest.raises(ExportError, match=r"3 quantiles are to be predicted, so \[batch, 3\]"):
        choose_head(compiled("mse"), data(task), np.zeros(shape, np.float32))
    assert choose_head(compiled("mse"), data(task), CROSSED).task == task
