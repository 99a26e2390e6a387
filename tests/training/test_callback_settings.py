"""What callbacks are set to may not differ where it acts on the training; all else is told."""

import logging
import time

import keras
import numpy as np
import pytest

from kerastrain.training.callback_settings import callback_settings, setting_differences


class Halving(keras.callbacks.Callback):
    def __init__(self, patience=3, monitor="val_loss", rows=(), where="a/log", rule=abs, verbose=0):
        super().__init__()
        self.patience, self.monitor, self.rows = patience, monitor, np.array(rows)
        self.where, self.rule, self.verbose = where, rule, verbose

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.5 * self.model.optimizer.learning_rate


class Crashing(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        assert int(self.model.optimizer.iterations) != self.step


def differences(before, now):
    return setting_differences(callback_settings([before]), [now])


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"patience": 5}, ["callback 0 Halving: patience: 3 recorded, 5 now"]),
        ({"patience": 3.0}, ["callback 0 Halving: patience: 3 recorded, 3.0 now"]),
        ({"monitor": "loss"}, ['callback 0 Halving: monitor: "val_loss" recorded, "loss" now']),
        ({"rule": max}, ["callback 0 Halving: rule: abs (function) recorded, max (function) now"]),
        ({"where": "b/log", "verbose": 1}, []),
        ({}, []),
    ],
)
def test_settings_are_compared_but_for_what_belongs_to_one_start(caplog, now, expected):
    caplog.set_level(logging.INFO, "kerastrain")
    assert differences(Halving(), Halving(**now)) == expected
    assert ('where: "a/log" recorded, "b/log" now' in caplog.text) == ("where" in now)


def test_times_at_which_a_callback_was_made_may_differ():
    assert not differences(Halving(time.time() // 1 - 0.98765), Halving(time.time() // 1 + 0.12345))


def test_what_does_not_act_on_the_training_is_told_and_not_refused(caplog):
    assert differences(Crashing(step=20), Crashing(step=35)) == []
    assert "The callback 0 Crashing was made otherwise: step: 20 recorded, 35 now" in caplog.text
    caplog.clear()
    assert differences(Crashing(step=20), Halving()) == ["callback 0 Halving: is new"]
    assert differences(Halving(), Crashing(step=20)) == ["callback 0 Halving: is gone"]
    assert not caplog.text


def test_functions_and_arrays_are_settings_too():
    def halved(value):
        return value * 0.5

    def divided(value):
        return value * 0.25

    divided.__qualname__ = halved.__qualname__
    assert differences(Halving(rows=[1]), Halving(rows=[2]))
    assert differences(Halving(rule=halved), Halving(rule=divided))
    assert not differences(Halving(rule=halved, rows=[1]), Halving(rule=halved, rows=[1]))
    schedulers = [keras.callbacks.LearningRateScheduler(f) for f in (halved, divided)]
    assert differences(*schedulers)
    assert differences(
        keras.callbacks.ReduceLROnPlateau(patience=3), keras.callbacks.ReduceLROnPlateau(patience=5)
    ) == ["callback 0 ReduceLROnPlateau: patience: 3 recorded, 5 now"]


def test_a_used_callback_has_the_settings_that_it_was_made_with():
    used = Halving()
    before = callback_settings([used])
    used.patience = 1
    assert callback_settings([used]) == before
