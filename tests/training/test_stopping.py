"""Patience: Keras's rule, except that NaN is never best."""

import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.objective import Objective
from kerastrain.training.stopping import Patience, PatienceProgress


def followed(rule, values):
    progress = PatienceProgress()
    for index, value in enumerate(values):
        progress = rule.update(progress, value=value, index=index)
    return progress


def falling(patience, **settings):
    return Patience(Objective("val_loss", "min"), patience=patience, **settings)


@given(
    values=st.lists(
        st.sampled_from([0.1, 0.2, 0.3, 0.35, 0.5, 1.0, -1.0]), min_size=1, max_size=30
    ),
    patience=st.integers(0, 4),
    min_delta=st.sampled_from([0.0, 0.06]),
    baseline=st.sampled_from([None, 0.25, 0.9]),
    start_from=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
)
def test_finite_values_stop_as_keras_early_stopping_does(
    values, patience, min_delta, baseline, start_from, mode
):
    keras_own = keras.callbacks.EarlyStopping(
        monitor="score",
        patience=patience,
        min_delta=min_delta,
        baseline=baseline,
        start_from_epoch=start_from,
        mode=mode,
    )

    class Model:
        stop_training = False

    keras_own.set_model(Model())
    keras_own.on_train_begin()
    for epoch, value in enumerate(values):
        keras_own.on_epoch_end(epoch, {"score": value})
        if keras_own.model.stop_training:
            break
    rule = Patience(
        Objective("score", mode),
        patience=patience,
        min_delta=min_delta,
        baseline=baseline,
        start_from=start_from,
    )
    progress = followed(rule, values[: epoch + 1])
    assert progress.stopped == keras_own.model.stop_training
    assert progress.best == keras_own.best
    assert progress.wait == keras_own.wait
    if progress.best is not None:
        assert progress.best_index == keras_own.best_epoch


def test_nan_in_first_epoch_does_not_become_best():
    progress = followed(falling(3), [math.nan, 0.5, math.inf, 0.4])
    assert (progress.best, progress.best_index, progress.stopped) == (0.4, 3, False)


def test_values_that_are_never_finite_use_up_the_patience():
    progress = followed(falling(2), [math.nan, math.nan, math.nan])
    assert progress.stopped and progress.best is None


def test_patience_zero_stops_at_the_first_evaluation_that_is_not_better():
    assert followed(falling(0), [1.0, 0.5, 0.5]).stopped_index == 2


def test_an_evaluation_without_the_value_changes_nothing():
    progress = followed(falling(1), [0.5, None, None])
    assert progress == PatienceProgress(best=0.5, best_index=0)


def test_after_the_stop_nothing_changes_any_more():
    stopped = followed(falling(1), [0.5, 0.6])
    assert falling(1).update(stopped, value=0.1, index=2) == stopped


@pytest.mark.parametrize("progress", [PatienceProgress(), PatienceProgress(0.25, 3, 2, 5)])
def test_progress_survives_json(progress):
    assert PatienceProgress.from_json(progress.to_json()) == progress
