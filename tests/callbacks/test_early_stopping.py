"""EarlyStopping in `model.fit`: Keras's behaviour, and what it forgets or loses."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import kerastrain
from kerastrain.errors import CheckpointError, ObjectiveError, OptionsError
from kerastrain.training.stopping import Patience, Target

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1)
Y = 3 * X


def model(learning_rate=0.1, units=1):
    net = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(units, kernel_initializer="ones")]
    )
    net.compile(keras.optimizers.SGD(learning_rate), "mse", metrics=["mae"])
    return net


class Scripted(keras.callbacks.Callback):
    """Puts given values of val_loss into the logs, and remembers the weights of each epoch."""

    def __init__(self, values):
        super().__init__()
        self.values, self.weights = values, []

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]
        self.weights.append(self.model.get_weights())


def fit(early_stopping, values, **settings):
    keras.utils.set_random_seed(0)
    net = model()
    script = Scripted(values)
    history = net.fit(
        X, Y, epochs=len(values), verbose=0, callbacks=[script, early_stopping], **settings
    )
    return net, script, history


def test_every_constructor_argument_of_keras_is_kept():
    import inspect

    theirs = inspect.signature(keras.callbacks.EarlyStopping.__init__).parameters
    ours = inspect.signature(kerastrain.EarlyStopping.__init__).parameters
    assert list(theirs) == [name for name in ours if name not in ("directory", "stop")]
    assert isinstance(kerastrain.EarlyStopping(), keras.callbacks.EarlyStopping)


@pytest.mark.parametrize("restore", [False, True])
def test_without_a_directory_it_does_what_keras_does(restore):
    values = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0]
    settings = {"monitor": "val_loss", "patience": 2, "restore_best_weights": restore}
    theirs = fit(keras.callbacks.EarlyStopping(**settings), values)
    ours = fit(kerastrain.EarlyStopping(**settings), values)
    assert ours[2].epoch == theirs[2].epoch == [0, 1, 2, 3]
    np.testing.assert_array_equal(ours[0].get_weights()[0], theirs[0].get_weights()[0])


def test_the_best_weights_are_on_disk_and_restored_from_there(tmp_path):
    callback = kerastrain.EarlyStopping(patience=2, directory=tmp_path)
    net, script, _ = fit(callback, [3.0, 1.0, 2.5, 2.4, 0.0])
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[1][0])
    assert len(list(tmp_path.glob("ckpt-*.index"))) >= 1
    recorded = json.loads((tmp_path / "early_stopping.json").read_text())
    assert [each["val_loss"] for each in recorded["evaluations"]] == [3.0, 1.0, 2.5, 2.4]


def test_nan_in_first_epoch_does_not_become_best(tmp_path):
    callback = kerastrain.EarlyStopping(patience=3, directory=tmp_path)
    net, script, _ = fit(callback, [float("nan"), 2.0, 1.0, float("inf"), 1.5])
    assert callback.best == 1.0 and callback.best_epoch == 2
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[2][0])


def test_a_program_started_again_goes_on_counting_whatever_the_folder_is_called(strange):
    fit(kerastrain.EarlyStopping(patience=3, directory=strange), [1.0, 2.0])
    again = kerastrain.EarlyStopping(patience=3, directory=strange)
    net = model()
    script = Scripted([None, None, 2.0, 2.0, 2.0, 0.5])
    history = net.fit(X, Y, initial_epoch=2, epochs=6, verbose=0, callbacks=[script, again])
    assert history.epoch == [2, 3]  # waited 1 before the restart, 2 after it
    assert again.best == 1.0


def test_the_better_model_of_an_earlier_start_is_not_overwritten(tmp_path):
    _, script, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [1.0])
    net, _, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [5.0, 4.0])
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_the_best_so_far_stays_until_a_better_one_is_safely_on_disk(tmp_path, monkeypatch):
    _, script, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [1.0])

    def no_space(*arguments, **settings):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow.train.CheckpointManager.save", no_space)
        with pytest.raises(CheckpointError, match="the disk is full"):
            fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [0.5])
    net, _, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [2.0])
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_a_job_that_had_stopped_does_not_train_again(tmp_path):
    _, script, _ = fit(kerastrain.EarlyStopping(patience=1, directory=tmp_path), [1.0, 2.0, 3.0])
    net, _, history = fit(kerastrain.EarlyStopping(patience=1, directory=tmp_path), [0.1] * 5)
    assert len(history.epoch) == 1  # fit itself cannot be kept from its first epoch
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_a_misspelt_metric_is_an_error_with_a_suggestion_at_the_first_epochs_end():
    with pytest.raises(ObjectiveError, match="not among the metrics .* Did you mean 'val_mae'"):
        model().fit(
            X,
            Y,
            validation_data=(X, Y),
            verbose=0,
            epochs=3,
            callbacks=[kerastrain.EarlyStopping(monitor="val_mea", mode="min")],
        )


def test_epochs_without_validation_are_passed_over_with_kerass_warning():
    callback = kerastrain.EarlyStopping(monitor="val_loss", patience=9)
    with pytest.warns(UserWarning, match="val_loss"):
        model().fit(
            X,
            Y,
            validation_data=(X, Y),
            validation_freq=2,
            verbose=0,
            epochs=4,
            callbacks=[callback],
        )
    assert callback.best is not None


def test_a_metric_whose_direction_is_not_known_must_say_it():
    net = model()
    script = Scripted([1.0])
    script.on_epoch_end = lambda epoch, logs: logs.update(my_score=1.0)
    with pytest.raises(ObjectiveError, match="mode='min' or mode='max'"):
        net.fit(X, Y, verbose=0, callbacks=[script, kerastrain.EarlyStopping("my_score")])


def test_weights_of_another_model_in_the_directory_are_refused(tmp_path):
    fit(kerastrain.EarlyStopping(patience=3, directory=tmp_path), [1.0])
    with pytest.raises(CheckpointError, match="belongs to another model"):
        model(units=2).fit(
            X, Y, verbose=0, callbacks=[kerastrain.EarlyStopping("loss", directory=tmp_path)]
        )


PROGRAM = """
    import os, signal, sys
    import numpy as np
    import keras, kerastrain
    sys.path.insert(0, {folder!r})
    from test_early_stopping import X, Y, model

    class Interrupt(keras.callbacks.Callback):
        kept = None
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = float(epoch)
            if epoch == 0:
                Interrupt.kept = self.model.get_weights()
        def on_train_batch_end(self, batch, logs=None):
            if Interrupt.kept is not None:
                os.kill(os.getpid(), signal.SIGINT)

    net = model()
    try:
        net.fit(X, Y, epochs=9, verbose=0, callbacks=[
            Interrupt(), kerastrain.EarlyStopping(directory={directory!r}, patience=9)])
    except KeyboardInterrupt:
        best = Interrupt.kept[0].tobytes() == net.get_weights()[0].tobytes()
        print("interrupted with the", "best" if best else "last", "weights")
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_the_best_weights_are_restored_after_ctrl_c_too(tmp_path):
    program = textwrap.dedent(PROGRAM).format(
        folder=os.path.dirname(__file__), directory=str(tmp_path)
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.stdout.split("\n")[:2] == ["interrupted with the best weights", "True"], (
        ended.stderr[-2000:]
    )


def test_the_handler_of_ctrl_c_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    fit(kerastrain.EarlyStopping(restore_best_weights=True), [1.0])
    assert signal.getsignal(signal.SIGINT) is before


def test_best_weights_written_by_a_first_attempt_are_not_written_again(tmp_path):
    callback = kerastrain.EarlyStopping(patience=9, directory=tmp_path)
    fit(callback, [2.0])
    callback.written_step = None
    write = callback.prepare_save()
    write()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt-*")}
    write()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt-*")} == written


def test_any_criterion_stops_fit():
    callback = kerastrain.EarlyStopping(stop="gl(10) and after(epochs=3)")
    _, _, history = fit(callback, [1.0, 2.0, 1.05, 1.2, 0.5])
    assert len(history.epoch) == 4
    assert callback.progress.verdict.says.startswith("the generalization loss of val_loss")


def test_with_another_rule_the_best_is_still_the_best_of_the_monitored_metric(tmp_path):
    callback = kerastrain.EarlyStopping(stop=Target(0.6) | Patience(9), directory=tmp_path)
    net, script, _ = fit(callback, [1.0, 0.7, 0.9, 0.6, 0.1])
    assert (callback.best, callback.best_epoch, callback.stopped_epoch) == (0.6, 3, 3)
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[3][0])


def test_a_program_started_again_judges_what_was_recorded_by_its_own_rule(tmp_path):
    first = kerastrain.EarlyStopping(stop="never", directory=tmp_path)
    fit(first, [1.0, 0.5, 0.6])
    again = kerastrain.EarlyStopping(stop="up(2, k=1)", directory=tmp_path)
    _, _, history = fit(again, [0.7, 0.4])
    assert len(history.epoch) == 1 and again.stopped_epoch == 3


def test_a_stop_comes_instead_of_keras_arguments_and_not_beside_them():
    with pytest.raises(OptionsError, match="decide the same thing"):
        kerastrain.EarlyStopping(patience=3, stop="gl(2)")
    with pytest.raises(OptionsError, match="Did you mean 'target'"):
        kerastrain.EarlyStopping(stop="traget(2)")


def test_a_metric_that_only_the_rule_needs_must_be_reported_too():
    callback = kerastrain.EarlyStopping(stop=Target(0.9, monitor="val_auc"))
    with pytest.raises(ObjectiveError, match="'val_auc', which is not among"):
        fit(callback, [1.0])


@pytest.mark.parametrize("rule", ["patience(steps=8)", "patience(epochs=2)", "after(epochs=4)"])
def test_lengths_are_counted_on_by_a_program_started_again(tmp_path, rule):
    # 64 rows in batches of 16: four steps an epoch. The best is the first evaluation of all.
    fit(kerastrain.EarlyStopping(stop=rule, directory=tmp_path), [1.0, 2.0], batch_size=16)
    again = kerastrain.EarlyStopping(stop=rule, directory=tmp_path)
    _, _, history = fit(again, [3.0, 4.0, 5.0], batch_size=16)
    assert len(history.epoch) == (2 if rule.startswith("after") else 1)


def test_a_longer_second_start_counts_on_to_its_end(tmp_path):
    fit(kerastrain.EarlyStopping(stop="never", directory=tmp_path), [1.0, 2.0], batch_size=16)
    again = kerastrain.EarlyStopping(stop="never", directory=tmp_path)
    fit(again, [3.0] * 5, batch_size=16)
    recorded = json.loads((tmp_path / "early_stopping.json").read_text())["evaluations"]
    assert [(each["step"], each["epoch"]) for each in recorded] == [(4 * i, i) for i in range(1, 8)]
