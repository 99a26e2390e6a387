"""EarlyStopping in `model.fit`: Keras's behaviour, and what it forgets or loses."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import kerastrain
from kerastrain.errors import CheckpointError, ObjectiveError, OptionsError, WorkdirError
from kerastrain.training.stopping import Patience, Target

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1)
Y = 3 * X


def model(learning_rate=0.1, units=1):
    net = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(units, kernel_initializer="ones")]
    )
    net.compile(keras.optimizers.SGD(learning_rate), "mse", metrics=["mae"])
    return net


class Killed(Exception):
    """What a fit dies of."""


class Scripted(keras.callbacks.Callback):
    """Puts given values of val_loss into the logs, and remembers the weights of each epoch."""

    def __init__(self, values, dies=False):
        super().__init__()
        self.values, self.weights, self.dies = values, [], dies

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == len(self.values):
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]
        self.weights.append(self.model.get_weights())

    def on_train_end(self, logs=None):
        if self.dies:
            raise Killed


def fit(early_stopping, values, net=None, **settings):
    keras.utils.set_random_seed(0)
    net, script = net or model(), Scripted(values)
    settings = {"epochs": len(values), **settings}
    history = net.fit(X, Y, verbose=0, callbacks=[script, early_stopping], **settings)
    return net, script, history


def interrupted_fit(early_stopping, values, net=None, **settings):
    """One that dies after these epochs, or, if they make it stop, just before its end."""
    keras.utils.set_random_seed(0)
    net, script = net or model(), Scripted(values, dies=True)
    settings = {"epochs": len(values) + 1, **settings}
    with pytest.raises(Killed):
        net.fit(X, Y, verbose=0, callbacks=[script, early_stopping], **settings)
    return script


def test_every_constructor_argument_of_keras_is_kept():
    import inspect

    theirs = inspect.signature(keras.callbacks.EarlyStopping.__init__).parameters
    ours = inspect.signature(kerastrain.EarlyStopping.__init__).parameters
    assert list(theirs) == [name for name in ours if name not in ("directory", "stop")]
    assert isinstance(kerastrain.EarlyStopping(), keras.callbacks.EarlyStopping)


def test_without_a_directory_it_does_what_keras_does():
    values = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0]
    settings = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
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
    interrupted_fit(kerastrain.EarlyStopping(patience=3, directory=strange), [1.0, 2.0])
    again = kerastrain.EarlyStopping(patience=3, directory=strange)
    net = model()
    script = Scripted([None, None, 2.0, 2.0, 2.0, 0.5])
    history = net.fit(X, Y, initial_epoch=2, epochs=6, verbose=0, callbacks=[script, again])
    assert history.epoch == [2, 3]  # waited 1 before the restart, 2 after it
    assert again.best == 1.0


def test_the_better_model_of_an_earlier_start_is_not_overwritten(tmp_path):
    script = interrupted_fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [1.0])
    net, _, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [5.0, 4.0])
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_the_best_so_far_stays_until_a_better_one_is_safely_on_disk(tmp_path, monkeypatch):
    script = interrupted_fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [1.0])

    def no_space(*arguments, **settings):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow.train.CheckpointManager.save", no_space)
        with pytest.raises(CheckpointError, match="the disk is full"):
            fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [0.5])
    net, _, _ = fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [2.0])
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_a_fit_killed_between_its_stop_and_its_end_does_not_train_again(tmp_path):
    first = kerastrain.EarlyStopping(patience=1, directory=tmp_path)
    script = interrupted_fit(first, [1.0, 2.0, 3.0])
    assert first.stopped_epoch == 1
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


def test_fits_one_after_the_other_in_one_directory_each_end_with_their_own_best(tmp_path, caplog):
    callback = kerastrain.EarlyStopping(patience=1, directory=tmp_path)
    for values in ([5.0, 5.8], [2.1, 2.2], [3.8, 3.9]):
        net, script, _ = fit(callback, values)
        assert callback.best == values[0]
        np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])
        callback = kerastrain.EarlyStopping(patience=1, directory=tmp_path)
    assert caplog.text.count("has finished; this one begins anew") == 2
    assert len(list(tmp_path.glob("ckpt-*.index"))) <= 2


def test_a_fit_that_dies_before_its_first_best_leaves_those_of_the_last_one(tmp_path):
    fit(kerastrain.EarlyStopping(directory=tmp_path), [1.0])
    kept = {path: path.read_bytes() for path in tmp_path.glob("*")}
    interrupted_fit(kerastrain.EarlyStopping(directory=tmp_path), [])
    assert {path: path.read_bytes() for path in tmp_path.glob("*")} == kept


class Subclassed(keras.Model):
    """Built by its first step; nothing in its configuration tells the shape of its input."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dense, self.dropout = keras.layers.Dense(1), keras.layers.Dropout(dropout)

    def call(self, x):
        return self.dropout(self.dense(keras.ops.mean(x, axis=1, keepdims=True)))


def deferred():
    net = keras.Sequential([keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    return net


def compiled_subclass():
    net = Subclassed()
    net.compile("sgd", "mse")
    return net


OTHERS = {
    "optimizer learning_rate: 0.1 recorded, 0.5 now": lambda: ({}, model(learning_rate=0.5), {}),
    "optimizer class_name: SGD recorded, Adam now": lambda: ({}, compiled("adam", "mse"), {}),
    "loss: mse recorded, mae now": lambda: ({}, compiled(keras.optimizers.SGD(0.1), "mae"), {}),
    "layer": lambda: ({}, model(units=2), {}),
    "steps per epoch: 2 recorded, 4 now": lambda: ({}, model(), {"batch_size": 16}),
    "monitor: val_loss recorded, loss now": lambda: ({"monitor": "loss"}, model(), {}),
}


def compiled(optimizer, loss):
    net = model()
    net.compile(optimizer, loss)
    return net


def test_an_interrupted_fit_of_something_else_is_refused_with_the_differences(tmp_path):
    interrupted_fit(kerastrain.EarlyStopping(patience=3, directory=tmp_path), [1.0, 2.0])
    kept = {path: path.read_bytes() for path in tmp_path.glob("*")}
    for difference, other in OTHERS.items():
        settings, net, of_fit = other()
        before = net.get_weights()
        with pytest.raises(OptionsError, match="remove the directory or give another") as refused:
            fit(kerastrain.EarlyStopping(directory=tmp_path, **settings), [0.1], net, **of_fit)
        assert difference in str(refused.value)
        np.testing.assert_array_equal(net.get_weights()[0], before[0])
    assert {path: path.read_bytes() for path in tmp_path.glob("*")} == kept


def test_another_number_of_examples_is_refused_before_anything_is_written(tmp_path):
    def fit_on(x=64, validation=64):
        callbacks = [kerastrain.EarlyStopping(directory=tmp_path), Scripted([1.0], dies=True)]
        model().fit(X[:x], Y[:x], epochs=9, verbose=0, callbacks=callbacks,
                    validation_data=(X[:validation], Y[:validation]))  # fmt: skip

    with pytest.raises(Killed):
        fit_on()
    kept = {path: path.read_bytes() for path in tmp_path.glob("*")}
    for rows, what in (({"x": 60}, "training"), ({"validation": 60}, "validation")):
        with pytest.raises(OptionsError, match=f"{what} examples: 64 recorded, 60 now"):
            fit_on(**rows)
    assert {path: path.read_bytes() for path in tmp_path.glob("*")} == kept


@pytest.mark.parametrize("make", [deferred, compiled_subclass])
def test_a_model_that_fit_builds_goes_on_too(tmp_path, make):
    script = interrupted_fit(
        kerastrain.EarlyStopping(patience=3, directory=tmp_path), [1.0], make()
    )
    again = kerastrain.EarlyStopping(patience=3, directory=tmp_path)
    net, _, history = fit(again, [2.0] * 9, make())
    assert (len(history.epoch), again.best) == (3, 1.0)
    np.testing.assert_array_equal(net.get_weights()[0], script.weights[0][0])


def test_examples_of_another_shape_are_refused_where_the_model_takes_any(tmp_path):
    interrupted_fit(kerastrain.EarlyStopping(directory=tmp_path), [1.0], compiled_subclass())
    with pytest.raises(OptionsError, match=r"shape of an example: \[1\] recorded, \[3\] now"):
        compiled_subclass().fit(
            np.repeat(X, 3, axis=1),
            Y,
            verbose=0,
            callbacks=[Scripted([1.0]), kerastrain.EarlyStopping(directory=tmp_path)],
        )


def test_two_that_write_to_one_directory_are_refused_before_weights_are_lost(tmp_path):
    two = [kerastrain.EarlyStopping(name, directory=tmp_path) for name in ("loss", "mae")]
    with pytest.raises(WorkdirError, match="Give each a directory of its own"):
        model().fit(X, Y, verbose=0, callbacks=two)


def test_a_comparison_by_which_the_kept_weights_are_not_the_best_is_refused(tmp_path):
    first = kerastrain.EarlyStopping(patience=9, min_delta=0.5, directory=tmp_path)
    interrupted_fit(first, [1.0, 0.8])
    with pytest.raises(OptionsError, match=r"those of val_loss=1\.0; .* the best was 0\.8"):
        fit(kerastrain.EarlyStopping(patience=9, directory=tmp_path), [0.1])


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
    interrupted_fit(first, [1.0, 0.5, 0.6])
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
    first = kerastrain.EarlyStopping(stop=rule, directory=tmp_path)
    interrupted_fit(first, [1.0, 2.0], batch_size=16)
    again = kerastrain.EarlyStopping(stop=rule, directory=tmp_path)
    _, _, history = fit(again, [3.0, 4.0, 5.0], batch_size=16)
    assert len(history.epoch) == (2 if rule.startswith("after") else 1)


def test_a_longer_second_start_counts_on_to_its_end(tmp_path):
    first = kerastrain.EarlyStopping(stop="never", directory=tmp_path)
    interrupted_fit(first, [1.0, 2.0], batch_size=16)
    again = kerastrain.EarlyStopping(stop="never", directory=tmp_path)
    fit(again, [3.0] * 5, batch_size=16)
    recorded = json.loads((tmp_path / "early_stopping.json").read_text())["evaluations"]
    assert [(each["step"], each["epoch"]) for each in recorded] == [(4 * i, i) for i in range(1, 8)]


# Whatever a user of Keras's class may read, override or assign, in a loop of one's own.


class Plain:
    """All of a model that a loop of one's own must have."""

    stop_training, weights = False, None

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights


def drive(callback, values, first=0, between=lambda epoch: None):
    """Epochs of one's own, with these values of val_loss; returns the epochs it took."""
    callback.set_model(Plain())
    callback.on_train_begin()
    for epoch, value in enumerate(values, first):
        between(epoch)
        callback.model.weights = [epoch]
        callback.on_epoch_end(epoch, {} if value is None else {"loss": 0.0, "val_loss": value})
        if callback.model.stop_training:
            break
    callback.on_train_end()
    return epoch + 1 - first


VALUES = [3.0, 2.0, 2.5, 2.45, 2.6, 2.7, 2.8, 1.0]


def keras_and_ours(settings, make=lambda base: base):
    return [
        make(base)(**settings) for base in (keras.callbacks.EarlyStopping, kerastrain.EarlyStopping)
    ]


def assert_alike(theirs, ours):
    for name in ("best", "best_epoch", "wait", "stopped_epoch", "min_delta", "best_weights"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
    assert ours.monitor_op == theirs.monitor_op
    assert ours.model.weights == theirs.model.weights


@pytest.mark.parametrize(
    ("first", "settings"),
    [
        (0, {"patience": 2, "restore_best_weights": True, "verbose": 1}),
        (2, {"patience": 1, "start_from_epoch": 3, "min_delta": 0.1, "verbose": 1}),
        (0, {"patience": 3, "baseline": 1.0, "mode": "max", "restore_best_weights": True}),
        (5, {"patience": 2, "baseline": 0.5, "min_delta": 0.01}),
    ],
)
def test_its_attributes_and_messages_are_those_of_keras(first, settings, capsys):
    theirs, ours = keras_and_ours(settings)
    epochs = drive(theirs, VALUES, first)
    printed = capsys.readouterr().out
    assert drive(ours, VALUES, first) == epochs
    assert capsys.readouterr().out == printed
    assert_alike(theirs, ours)


@pytest.mark.filterwarnings("ignore:Early stopping conditioned")
def test_epochs_without_the_metric_count_as_in_keras():
    theirs, ours = keras_and_ours({"patience": 2, "start_from_epoch": 2})
    values = [3.0, None, 2.0, None, 2.5, None, 2.6, 1.0]
    assert drive(theirs, values) == drive(ours, values) == 7
    assert_alike(theirs, ours)


def relative(base):
    class Relative(base):
        def _is_improvement(self, monitor_value, reference_value):
            return reference_value is None or monitor_value < 0.9 * reference_value

    return Relative


def with_op(base):
    class WithOp(base):
        def _set_monitor_op(self):
            self.monitor_op = lambda value, reference: value < 0.9 * reference

    return WithOp


def from_loss(base):
    class FromLoss(base):
        def get_monitor_value(self, logs):
            return 10 - logs["val_loss"] if "val_loss" in logs else None

        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, {**logs, "seen": 1.0})

    return lambda **settings: FromLoss("score", mode="max", **settings)


@pytest.mark.parametrize("make", [relative, with_op, from_loss])
def test_what_a_subclass_overrides_is_used(make):
    theirs, ours = keras_and_ours({"patience": 2, "restore_best_weights": True}, make)
    values = [3.0, 2.8, 2.75, 2.6, 2.55, 2.5, None, 2.45]
    assert drive(theirs, values) == drive(ours, values)
    theirs.monitor_op = ours.monitor_op  # Two lambdas are never equal.
    assert_alike(theirs, ours)


def test_a_comparison_of_ones_own_and_a_rule_are_refused_together():
    with pytest.raises(OptionsError, match="compares in a way of its own"):
        drive(relative(kerastrain.EarlyStopping)(stop="gl(2)"), VALUES)
    with pytest.raises(OptionsError, match="which this Plain has not moved"):
        drive(kerastrain.EarlyStopping(stop="patience(steps=8)"), VALUES)


def test_a_value_of_ones_own_is_refused_where_a_run_could_not_resume_by_it():
    computes = from_loss(kerastrain.EarlyStopping)()
    computes.set_params({"run": None})
    with pytest.raises(OptionsError, match="Report the value as a metric"):
        computes.on_train_begin()


@pytest.mark.parametrize("assigned", [{"wait": 0}, {"patience": 4}])
def test_what_is_assigned_in_mid_training_is_used(assigned):
    theirs, ours = keras_and_ours({"patience": 2})
    for callback in (theirs, ours):
        drive(
            callback,
            VALUES,
            between=lambda epoch, to=callback: epoch == 3 and vars(to).update(assigned),
        )
    assert_alike(theirs, ours)
    ours.patience = 1
    assert drive(ours, VALUES) == 3


def test_a_best_that_is_assigned_is_refused_since_it_would_not_be_used():
    callback = kerastrain.EarlyStopping(patience=2)
    with pytest.raises(OptionsError, match=r"assigned best=0\.5 .* baseline="):
        drive(callback, VALUES, between=lambda epoch: setattr(callback, "best", 0.5))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_used_one_can_be_copied_and_the_copy_goes_on(tmp_path, copied):
    used = kerastrain.EarlyStopping(patience=3, directory=tmp_path)
    fit(used, [1.0, 2.0])
    another = copied(used)
    assert (another.best, another.wait, another.model) == (1.0, 1, None)
    np.testing.assert_array_equal(another.best_weights[0], used.best_weights[0])
    another.set_model(Plain())
    another.on_epoch_end(2, {"val_loss": 3.0})
    assert (another.wait, used.wait) == (2, 1)
    _, _, history = fit(another, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert len(history.epoch) == 4
