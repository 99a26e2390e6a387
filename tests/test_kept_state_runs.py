"""Whatever training changes survives an interruption, or is refused before the first step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here

import kerastrain
from kerastrain.errors import TrainingError
from kerastrain.resume_check.comparison import differences, what_remains

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 4)).astype(np.float32)
Y = X @ np.array([1, 2, 3, 4], np.float32) + 5
TRAIN, VALIDATION = (X[:96], Y[:96]), (X[96:], Y[96:])


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Exports are checked in this process: quick. The fresh one has its own tests."""
    check_here(monkeypatch)


class Shift(keras.layers.Layer):
    """Moves by what it has seen in training, which it keeps where Keras does not look."""

    def __init__(self):
        super().__init__()
        self.memory = {"seen": [tf.Variable(0.0, trainable=False)]}

    def call(self, x, training=False):
        (seen,) = self.memory["seen"]
        if training:
            seen.assign(0.9 * seen + tf.reduce_mean(x))
        return x + seen


class TwoOptimizers(keras.Model):
    """Noise from a generator of its own, a second optimizer, a teacher that follows."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out, self.shift = keras.layers.Dense(4), keras.layers.Dense(1), Shift()
        self.noise = tf.random.Generator.from_seed(1)
        self.teacher = tf.Variable(tf.zeros((4, 1)), trainable=False)

    def compile(self, first, second, weight):
        super().compile(first, lambda y, p: weight * keras.losses.mean_absolute_error(y, p))
        self.second = second

    def call(self, x, training=False):
        return self.shift(self.out(self.hidden(x)), training=training)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            p = self(x + 0.1 * self.noise.normal(tf.shape(x)), training=True)
            loss = self.compute_loss(x, y, p)
        for optimizer, layer in ((self.optimizer, self.hidden), (self.second, self.out)):
            weights = layer.trainable_variables
            optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
        self.teacher.assign(0.9 * self.teacher + 0.1 * self.out.kernel.value)
        self._loss_tracker.update_state(loss)
        return {"loss": loss}


class Crash(Exception):
    pass


class RisingWeight(keras.callbacks.Callback):
    """Changes a variable of the loss, as a schedule of one's own does."""

    crash_epoch = None

    def __init__(self, variable):
        super().__init__()
        self.variable = variable

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.crash_epoch:
            raise Crash
        if epoch == 1:
            self.variable.assign(2.0)


def train_two(workdir):
    weight = tf.Variable(1.0, trainable=False)

    def model():
        net = TwoOptimizers()
        optimizers = keras.optimizers.Adam(0.05), keras.optimizers.SGD(0.05, momentum=0.9)
        net.compile(*optimizers, weight)
        return net

    return kerastrain.train(
        model,
        TRAIN,
        validation=VALIDATION,
        workdir=workdir,
        max_epochs=5,
        batch_size=32,
        checkpoint_every="1epochs",
        callbacks=[RisingWeight(weight)],
        verbose=0,
    )


def test_second_optimizers_teachers_generators_and_variables_of_a_loss_are_resumed(
    tmp_path, monkeypatch
):
    train_two(tmp_path / "whole")
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr(RisingWeight, "crash_epoch", 3)
        train_two(tmp_path / "run")
    train_two(tmp_path / "run")
    whole, run = (_without_names(what_remains(tmp_path / name)) for name in ("whole", "run"))
    assert differences(run, whole) == []
    assert {"latest: others/0", "best: model/4"} <= set(whole)


def _without_names(remains):
    """Keras's names count what the process made before; positions do not."""
    return {name.partition(" (")[0]: value for name, value in remains.items()}


def plain(*layers, optimizer="adam"):
    net = keras.Sequential([keras.Input((4,), name="x"), *layers, keras.layers.Dense(1)])
    net.compile(optimizer, "mae", metrics=["mae"])
    return net


def train_plain(workdir, net, **changed):
    settings = {"max_epochs": 4, "batch_size": 32, "verbose": 0, **changed}
    return kerastrain.train(net, TRAIN, validation=VALIDATION, workdir=workdir, **settings)


def answers(result):
    served = tf.saved_model.load(str(result.export)).signatures["serving_default"]
    return next(iter(served(x=tf.constant(VALIDATION[0])).values())).numpy().ravel()


class Drift(keras.callbacks.Callback):
    """Makes the model worse from the second epoch on."""

    def __init__(self, variable):
        super().__init__()
        self.variable = variable

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= 2:
            self.variable.assign_add(50.0)


def test_the_best_weights_come_with_the_variable_that_keras_does_not_track(tmp_path):
    shift = Shift()
    drift = Drift(shift.memory["seen"][0])
    result = train_plain(tmp_path / "run", plain(shift), callbacks=[drift])
    assert result.best["step"] <= 6
    error = np.abs(answers(result) - VALIDATION[1]).mean()
    assert error == pytest.approx(result.best["value"], rel=1e-5)


def test_in_fit_the_best_weights_come_with_that_variable_too(tmp_path):
    shift = Shift()
    net = plain(shift)
    own = kerastrain.EarlyStopping(patience=9, directory=tmp_path / "best")
    drift = Drift(shift.memory["seen"][0])
    fit = {"validation_data": VALIDATION, "epochs": 4, "verbose": 0}
    net.fit(*TRAIN, callbacks=[drift, own], **fit)
    assert net.evaluate(*VALIDATION, verbose=0)[0] == pytest.approx(own.best, rel=1e-5)


class Noise(keras.layers.Layer):
    def call(self, x, training=False):
        return x + tf.random.normal(tf.shape(x)) if training else x


def test_a_random_op_without_a_seed_is_refused_unless_inexact_resume_is_asked_for(tmp_path, caplog):
    with pytest.raises(TrainingError, match=r"RandomStandardNormal in '.*noise.*keras\.random"):
        train_plain(tmp_path / "run", plain(Noise()))
    result = train_plain(tmp_path / "run", plain(Noise()), inexact_resume=True, max_epochs=1)
    manifest = (result.export / "assets.extra" / "manifest.json").read_text()
    assert "RandomStandardNormal" in manifest
    assert "resuming is inexact" in caplog.text


def compiled_anew(model):
    model.compile("adam", "mae")


def frozen(model):
    model.layers[-1].trainable = False


def given_weight_decay(model):
    model.optimizer.weight_decay = 0.1


def given_a_schedule(model):
    model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)


@pytest.mark.parametrize(
    ("change", "event", "what"),
    [
        (compiled_anew, "on_epoch_begin", "the optimizer"),
        (frozen, "on_epoch_end", "trainable"),
        (given_a_schedule, "on_train_batch_end", "schedule"),
        (given_weight_decay, "on_epoch_begin", "settings"),
    ],
)
def test_what_a_compiled_step_would_not_notice_is_refused_at_once(tmp_path, change, event, what):
    callback = keras.callbacks.LambdaCallback(
        **{event: lambda number, logs: number == 1 and change(callback.model)}
    )
    with pytest.raises(TrainingError, match=rf"At step \d a callback changed.*{what}.*two runs"):
        train_plain(tmp_path / "run", plain(), callbacks=[callback])


def test_several_optimizers_in_one_are_trained_with(tmp_path):
    joined = keras.optimizers.OptimizerMap(
        keras.optimizers.Adam(0.1), {".*bias": keras.optimizers.SGD(0.1)}
    )
    net = plain(optimizer=keras.optimizers.MultiOptimizer(joined))
    assert len(train_plain(tmp_path / "run", net).history) == 4


def test_a_loss_weight_in_a_variable_keeps_no_export_from_being_checked(tmp_path):
    weight = keras.Variable(1.0, trainable=False)
    net = plain()
    net.compile("adam", lambda y, p: weight * keras.ops.mean(abs(y - p), -1))
    result = train_plain(tmp_path / "run", net, max_epochs=1)
    assert (result.export / "model.keras").exists()


def test_gradients_are_accumulated_as_keras_does_it(tmp_path):
    net = plain(optimizer=keras.optimizers.Adam(0.1, gradient_accumulation_steps=2))
    assert len(train_plain(tmp_path / "run", net, max_epochs=2).history) == 2
