"""`kerastrain.train`: a model of one's own, from arrays to a published version."""

import copy
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here

import kerastrain
from kerastrain.errors import (
    CheckpointError,
    DataError,
    KerastrainError,
    ObjectiveError,
    OptionsError,
    ResumeError,
    TrainingError,
    WorkdirError,
)
from kerastrain.export.manifest import read_manifest
from kerastrain.workdir import read_json

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 300).astype(np.int32)
POINTS = (np.eye(3)[LABELS] * 2 + RNG.normal(size=(300, 3))).astype(np.float32)
TRAIN = (POINTS[:200], LABELS[:200])
VALIDATION = (POINTS[200:250], LABELS[200:250])
TEST = (POINTS[250:], LABELS[250:])


def model():
    features = keras.Input((3,), name="features")
    x = keras.layers.Dense(8, activation="relu")(features)
    x = keras.layers.Dropout(0.1)(x)
    net = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return net


def train(workdir, **changed):
    settings = {
        "validation": VALIDATION,
        "max_epochs": 6,
        "batch_size": 32,
        "verbose": 0,
        "checkpoint_every": "1epochs",
        **changed,
    }
    return kerastrain.train(settings.pop("model", model), TRAIN, workdir=workdir, **settings)


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Exports are checked in this process: quick. The fresh one has its own tests."""
    check_here(monkeypatch)


def nan_after(bad_step):
    def step(state, batch):
        loss = kerastrain.supervised_step(state, batch)
        reached = state.optimizer.iterations > bad_step
        return tf.where(reached, tf.constant(float("nan")), loss)

    return step


class Crash(Exception):
    pass


class CrashAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.crash_epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.crash_epoch:
            raise Crash


def test_a_run_ends_with_its_best_weights_published_and_measured(tmp_path):
    result = train(tmp_path / "run", test=TEST, max_epochs=15, patience=4)
    history = [record["val_loss"] for record in result.history]
    assert result.best["value"] == min(history)
    assert result.best["step"] == result.history[int(np.argmin(history))]["step"]
    assert result.metrics["accuracy"] > 0.6
    served = tf.saved_model.load(str(result.export)).signatures["serving_default"]
    answers = served(features=tf.constant(TEST[0]))
    assert set(answers) == {"logits", "probabilities", "label"}
    accuracy = np.mean(answers["label"].numpy() == TEST[1])
    assert accuracy == pytest.approx(result.metrics["accuracy"])


def loss_on(net):
    return net.evaluate(*VALIDATION, verbose=0, return_dict=True)["loss"]


def weights_of(net):
    return [array.tobytes() for array in net.get_weights()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a finished run; tests leave it as it is."""
    place = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        train(place)
    return place


def test_the_same_call_again_trains_nothing_and_gives_the_model_the_best_weights(tmp_path):
    net = model()
    first = train(tmp_path / "run", model=net)
    assert first.model is net
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    # The cell is run again: with the model that the first call trained, and with a new one.
    for same in (net, model(), model):
        again = train(tmp_path / "run", model=same)
        assert again.already_finished and not first.already_finished
        assert (again.step, again.best, again.export) == (first.step, first.best, first.export)
        assert loss_on(again.model) == pytest.approx(first.best["value"], rel=1e-5)
        assert again.model is same or same is model
    # Only the lock's note of who looked last is new.
    changed = {p.name for p in files if p.stat().st_mtime_ns != files[p]}
    assert changed <= {"lock"}
    longer = train(tmp_path / "run", max_epochs=8)
    assert longer.step == 8 * 7 and longer.export.name == "2"


def recompiled(optimizer, **settings):
    net = model()
    metrics = settings.get("metrics", ["accuracy"])
    net.compile(optimizer, settings.get("loss", net.loss), metrics=metrics)
    return net


def with_units(units):
    features = keras.Input((3,), name="features")
    x = keras.layers.Dense(units, activation="relu")(features)
    x = keras.layers.Dropout(0.1)(x)
    net = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    net.compile(keras.optimizers.Adam(0.01), model().loss, metrics=["accuracy"])
    return net


@pytest.mark.parametrize(
    ("make", "changed", "told"),
    [
        (model, {"batch_size": 16}, "batch_size: 32 recorded, 16 now"),
        (
            model,
            {"validation": (VALIDATION[0] + 1, VALIDATION[1])},
            r"data:\n  validation: 50 rows",
        ),
        (model, {"test": TEST}, "test: None recorded, 50 rows of"),
        (lambda: recompiled(keras.optimizers.Adam(0.5)), {}, "learning_rate: 0.01 recorded, 0.5"),
        (lambda: recompiled(keras.optimizers.SGD(0.01)), {}, "class_name: Adam recorded, SGD now"),
        (
            lambda: recompiled(
                keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy()
            ),
            {},
            "loss from_logits: True recorded, False now",
        ),
        (lambda: with_units(16), {}, r"layer dense \(2 of 4\): units: 8 recorded, 16 now"),
        (model, {"step": nan_after(10)}, "another step"),
        (lambda: recompiled(keras.optimizers.Adam(0.01), metrics=[]), {}, "metrics 0: accuracy"),
        (
            model,
            {"callbacks": [keras.callbacks.ReduceLROnPlateau("val_loss")]},
            "callback 0 ReduceLROnPlateau: is new",
        ),
    ],
)
def test_a_finished_run_refuses_what_differs_and_leaves_the_model_alone(
    finished, make, changed, told
):
    net = make()
    before = weights_of(net)
    with pytest.raises(ResumeError, match=told):
        train(finished, model=net, **changed)
    assert weights_of(net) == before


def test_best_weights_that_are_gone_are_an_error_that_says_what_is_left(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    net = model()
    before = weights_of(net)
    with pytest.raises(CheckpointError, match=r"load .*export/run/1, or begin anew") as raised:
        train(tmp_path / "run", model=net)
    assert weights_of(net) == before and "\n" not in str(raised.value)


def test_a_new_version_is_trained_when_something_differs_and_only_then(tmp_path, caplog):
    first = train(tmp_path / "run", max_epochs=2)
    assert train(tmp_path / "run", max_epochs=2, new_version=True).already_finished
    other = {"validation": (VALIDATION[0] + 1, VALIDATION[1]), "new_version": True}
    net = model()
    for epoch in (1, 2):  # The same call goes on with the new run, and its model is the run's own.
        with pytest.raises(Crash):
            train(tmp_path / "run", model=net, callbacks=[CrashAt(epoch)], max_epochs=3, **other)
    assert "initial weights" not in caplog.text
    second = train(tmp_path / "run", max_epochs=3, **other)
    assert "initial weights are not those that the run began with" in caplog.text
    assert not second.already_finished and second.step == 3 * 7
    assert (first.export.name, second.export.name) == ("1", "2")
    (earlier,) = (tmp_path / "run" / "earlier").iterdir()
    kept = read_json(earlier / "result.json")
    assert kept["best"] == first.best
    assert (earlier / kept["export"] / "saved_model.pb").exists()


def test_a_new_version_of_the_same_score_is_published_for_its_own_weights(tmp_path):
    same = {"max_epochs": 1, "objective": "val_accuracy", "patience": 3}
    for rate, version in ((1e-4, "1"), (2e-4, "2")):
        net = recompiled(keras.optimizers.SGD(rate))
        net.layers[-1].bias.assign([50.0, 0.0, 0.0])  # It says the first class, whatever it learns.
        result = train(tmp_path / "run", model=net, new_version=True, **same)
        assert result.export.name == version


class AsInTheGuide(keras.callbacks.Callback):
    """Keras's guide: progress, and a learning rate, that are set where the training begins."""

    def on_train_begin(self, logs=None):
        self.wait, self.best = 0, np.inf
        self.seen = np.zeros((40, 40))
        self.model.optimizer.learning_rate.assign(0.02)

    def on_epoch_end(self, epoch, logs=None):
        is_better = logs["val_loss"] < self.best - 0.05
        self.best, self.wait = (logs["val_loss"], 0) if is_better else (self.best, self.wait + 1)
        self.seen[epoch] += 1
        if self.wait == 3:
            self.model.stop_training = True


def test_a_crashed_run_goes_on_exactly_with_callbacks_where_they_were(tmp_path, strange):
    def callbacks(*more):
        return [
            AsInTheGuide(),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.05),
            *more,
        ]

    whole = train(tmp_path / "whole", callbacks=callbacks(), max_epochs=20)
    assert whole.step < 20 * 7 and "by a callback" in whole.stopped
    with pytest.raises(Crash):
        train(strange, callbacks=callbacks(CrashAt(4)), max_epochs=20)
    last = callbacks()
    resumed = train(strange, callbacks=last, max_epochs=20)
    assert resumed.history == whole.history and resumed.stopped == whole.stopped
    assert last[0].seen.sum() == 40 * len(whole.history)
    lines = (strange / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert rates[-1] < rates[0]


def test_a_start_killed_between_publishing_and_its_record_does_not_publish_twice(tmp_path):
    first = train(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    again = train(tmp_path / "run")
    assert again.export == first.export and not again.already_finished
    assert again.metrics == first.metrics


def test_a_users_callback_hears_of_every_batch(tmp_path):
    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            heard.append((batch, "loss" in logs))

    heard = []
    train(tmp_path / "run", callbacks=[Batches()], max_epochs=2)
    assert heard == [(batch, True) for batch in range(7)] * 2


def test_a_callback_that_stops_training_ends_the_run(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    result = train(tmp_path / "run", callbacks=[Stop()])
    assert result.step == 14 and "by a callback" in result.stopped


def test_an_early_stopping_of_ones_own_decides(tmp_path):
    own = kerastrain.EarlyStopping(monitor="val_accuracy", patience=0)
    result = train(tmp_path / "run", callbacks=[own], max_epochs=50)
    assert result.best["name"] == "val_accuracy"
    assert "val_accuracy did not improve" in result.stopped


def test_a_misspelt_objective_fails_before_anything_is_written(tmp_path):
    with pytest.raises(ObjectiveError, match="Did you mean 'val_loss'"):
        train(tmp_path / "run", objective="val_los:min")
    assert not (tmp_path / "run" / "run.json").exists()


def test_validation_data_that_are_missing_are_missed_by_name(tmp_path):
    with pytest.raises(ObjectiveError, match="'val_loss' is not among the metrics .*loss"):
        train(tmp_path / "run", validation=None, objective="val_loss")


def test_without_validation_the_training_loss_is_the_objective(tmp_path):
    result = train(tmp_path / "run", validation=None, max_epochs=2)
    assert result.best["name"] == "loss"


def test_a_loss_that_is_not_finite_stops_there_and_publishes_the_best_before(tmp_path):
    result = train(tmp_path / "run", step=nan_after(10), jit="off")
    assert "not a finite number at step 10" in result.stopped
    assert result.best["step"] == 7
    assert result.export.is_dir()


def test_without_a_single_finite_evaluation_nothing_is_published(tmp_path):
    with pytest.raises(TrainingError, match="nothing to publish. Try a lower --learning_rate"):
        train(tmp_path / "run", step=nan_after(1), jit="off")
    assert not (tmp_path / "run" / "export").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def test_other_data_are_refused_on_resume(tmp_path):
    train(tmp_path / "run")
    other = (VALIDATION[0] + 1, VALIDATION[1])
    with pytest.raises(ResumeError, match="other data"):
        train(tmp_path / "run", max_epochs=7, validation=other)


def test_another_environment_is_refused_on_resume(tmp_path):
    train(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    run = json.loads(file.read_text())
    run["environment"]["tensorflow"] = "1.0"
    file.write_text(json.dumps(run))
    with pytest.raises(ResumeError, match="tensorflow: 1.0 recorded"):
        train(tmp_path / "run", max_epochs=7)
    assert train(tmp_path / "run", max_epochs=7, override=True).step == 49


def test_metrics_in_16_bits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.src.backend.config, "_FLOATX", "float16")
    with pytest.raises(KerastrainError, match=r"'loss/total' is float16.*set_floatx\('float32'\)"):
        train(tmp_path / "run")


def test_another_backend_is_refused_with_the_way_to_change_it(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(KerastrainError, match="runs on jax in this program.*KERAS_BACKEND"):
        train(tmp_path / "run")


def test_named_inputs_and_weights_are_trained_on(tmp_path):
    a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
    net = keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(keras.layers.Concatenate()([a, b])))
    net.compile("adam", "mse")
    inputs = {"a": POINTS[:, :1], "b": POINTS[:, 1:]}
    weights = np.ones(300, np.float32)
    result = kerastrain.train(
        net,
        (inputs, LABELS.astype(np.float32)[:, None], weights),
        workdir=tmp_path / "run",
        task=kerastrain.Regression("y"),
        max_epochs=2,
        verbose=0,
    )
    served = tf.saved_model.load(str(result.export)).signatures["serving_default"]
    answers = served(a=tf.constant(inputs["a"]), b=tf.constant(inputs["b"]))
    assert answers["prediction"].shape == (300,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((POINTS, LABELS[:10]), "same number of rows; got inputs 300, targets 10"),
        (POINTS, "a ndarray of float32, shape .* expected arrays"),
        ((POINTS, [LABELS, LABELS]), "models with several outputs are not supported"),
        ((POINTS, {"a": LABELS}), "y is a dict"),
        ((POINTS, None), "y is a NoneType"),
        ((POINTS[:0], LABELS[:0]), "no rows"),
    ],
)
def test_arrays_that_do_not_belong_together_are_named(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        kerastrain.train(model, arrays, workdir=tmp_path / "run", verbose=0)


def test_logs_hold_every_round_once_against_the_true_step(tmp_path):
    result = train(tmp_path / "run", evaluate_every="3steps", max_steps=8)
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rounds = [line["step"] for line in lines if line["kind"] == "evaluation"]
    assert rounds == [record["step"] for record in result.history] == [3, 6, 8]


def exported(result):
    return tf.saved_model.load(str(result.export)).signatures["serving_default"]


def loss_of(result):
    """The exported model's loss on the validation data."""
    logits = exported(result)(features=tf.constant(VALIDATION[0]))["logits"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(VALIDATION[1], logits))


def test_the_value_said_to_be_best_is_that_of_the_exported_weights(tmp_path):
    keras_own = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
    result = train(tmp_path / "run", evaluate_every="3steps", max_steps=8, callbacks=[keras_own])
    assert loss_of(result) == pytest.approx(result.best["value"], rel=1e-5)
    longer = train(tmp_path / "run", evaluate_every="3steps", max_steps=9, callbacks=[keras_own])
    assert loss_of(longer) == pytest.approx(longer.best["value"], rel=1e-5)


def test_averaged_weights_are_what_is_evaluated_and_exported(tmp_path):
    def averaged():
        net = model()
        optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
        net.compile(optimizer, net.loss, metrics=["accuracy"])
        return net

    result = train(tmp_path / "run", model=averaged, max_epochs=4)
    assert loss_of(result) == pytest.approx(result.best["value"], rel=1e-5)


def test_an_epoch_begins_once_for_callbacks_however_often_the_run_is_started(tmp_path):
    def callbacks(*more):
        return [keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.7), *more]

    whole = train(tmp_path / "whole", callbacks=callbacks())
    with pytest.raises(Crash):
        train(tmp_path / "crashed", callbacks=callbacks(CrashAt(3)))
    assert train(tmp_path / "crashed", callbacks=callbacks()).history == whole.history


def test_a_stop_by_a_callback_is_remembered_if_the_export_is_interrupted(tmp_path, monkeypatch):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 3

    def crash(*arguments, **settings):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("kerastrain.session.publish", crash)
        with pytest.raises(Crash):
            train(tmp_path / "run", callbacks=[Stop()])
    result = train(tmp_path / "run", callbacks=[Stop()])
    assert result.step == 4 and "by a callback" in result.stopped


def test_random_numbers_without_a_seed_are_resumed_too(tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal(keras.ops.shape(x)) if training else x

    def noisy():
        net = keras.Sequential([keras.Input((3,), name="features"), Noise(), keras.layers.Dense(3)])
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return net

    whole = train(tmp_path / "whole", model=noisy)
    with pytest.raises(Crash):
        train(tmp_path / "crashed", model=noisy, callbacks=[CrashAt(3)])
    assert train(tmp_path / "crashed", model=noisy).history == whole.history


def test_another_model_is_refused_on_resume(tmp_path):
    def other():
        net = model()
        net.compile(keras.optimizers.Adam(0.5), net.loss, metrics=["accuracy"])
        return net

    with pytest.raises(Crash):
        train(tmp_path / "run", callbacks=[CrashAt(2)])
    with pytest.raises(ResumeError, match=r"model:\n  optimizer learning_rate: 0\.01 rec.*, 0\.5"):
        train(tmp_path / "run", model=other)
    # As an earlier version recorded it.
    file = tmp_path / "run" / "run.json"
    run = json.loads(file.read_text())
    for name in ("splits", "step", "initial_weights"):
        del run[name]
    for name in ("graph", "layer_list", "code", "is_trained"):
        del run["model"][name]
    file.write_text(json.dumps(run))
    with pytest.raises(ResumeError, match=r"model:\n  optimizer learning_rate: 0\.01 rec.*, 0\.5"):
        train(tmp_path / "run", model=other)
    assert train(tmp_path / "run").step == 42


def test_a_refused_extension_leaves_a_finished_run_finished(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(ResumeError, match="other data"):
        train(tmp_path / "run", max_epochs=9, validation=(VALIDATION[0] + 1, VALIDATION[1]))
    assert train(tmp_path / "run").already_finished


def test_an_early_stopping_of_ones_own_serves_in_two_runs(tmp_path):
    own = kerastrain.EarlyStopping(patience=9)
    for name in ("a", "b"):
        train(tmp_path / name, callbacks=[own], max_epochs=2)
        assert list((tmp_path / name / "checkpoints" / "best").glob("ckpt-*.index"))
    assert own.directory is None
    assert copy.deepcopy(own).best == own.best


def test_an_objective_and_an_early_stopping_may_not_contradict(tmp_path):
    with pytest.raises(OptionsError, match="Leave one of them out"):
        train(
            tmp_path / "run",
            objective="val_accuracy",
            callbacks=[kerastrain.EarlyStopping("val_loss")],
        )


def test_labels_beyond_the_models_outputs_are_named(tmp_path):
    with pytest.raises(DataError, match="labels of validation go from 0 to 7; the model has 3"):
        train(tmp_path / "run", validation=(VALIDATION[0], np.minimum(VALIDATION[1] * 7, 7)))


def test_labels_of_a_subclassed_model_are_checked_too(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = keras.layers.Dense(3)

        def call(self, x, training=False):
            return self.logits(x)

    net = Own()
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(DataError, match="labels of validation go from 0 to 7; the model has 3"):
        bad = (VALIDATION[0], np.minimum(VALIDATION[1] * 7, 7))
        train(tmp_path / "run", model=net, validation=bad)


def test_a_folder_left_by_a_start_killed_before_its_record_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "splits.npz").write_bytes(b"")
    assert train(tmp_path / "run", max_epochs=1).step == 7


def test_a_metric_of_several_values_can_be_the_objective(tmp_path):
    def with_f1():
        net = model()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        net.compile("adam", loss, metrics=[keras.metrics.F1Score(name="f1")])
        return net

    def hot(split):
        return split[0], np.eye(3, dtype=np.float32)[split[1]]

    result = kerastrain.train(
        with_f1, hot(TRAIN), validation=hot(VALIDATION), workdir=tmp_path / "run",
        objective="val_f1_0:max", max_epochs=1, verbose=0,
    )  # fmt: skip
    assert result.best["name"] == "val_f1_0"


def test_an_evaluation_that_xla_cannot_compile_runs_without_it(tmp_path):
    class Odd(keras.Model):
        def test_step(self, data):
            tf.debugging.assert_greater(
                tf.strings.length(tf.strings.as_string(tf.reduce_sum(data[0]))), 0
            )
            return super().test_step(data)

    def odd():
        features = keras.Input((3,), name="features")
        net = Odd(features, keras.layers.Dense(3)(features))
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return net

    assert len(train(tmp_path / "run", model=odd, jit="on", max_epochs=2).history) == 2


def test_a_work_directory_that_cannot_be_looked_into_is_an_error_in_one_line(tmp_path):
    with pytest.raises(WorkdirError, match="cannot be looked into: File name too long"):
        train(tmp_path / ("x" * 300))


def test_a_run_from_before_evaluate_batch_goes_on_as_it_evaluated(tmp_path):
    train(tmp_path / "run", max_epochs=1)
    record = tmp_path / "run" / "run.json"
    recorded = json.loads(record.read_text())
    for name in ("given", "resolved"):
        assert recorded[name].pop("evaluate_batch") is None
    record.write_text(json.dumps(recorded))
    with pytest.raises(ResumeError, match="evaluate_batch: 1000 recorded, 7 now"):
        train(tmp_path / "run", max_epochs=2, evaluate_batch=7)
    assert len(train(tmp_path / "run", max_epochs=2).history) == 2
    assert json.loads(record.read_text())["resolved"]["evaluate_batch"] == 1000


class Sampling(keras.layers.Layer):
    """As in a variational autoencoder: random whether it is training or not."""

    def call(self, inputs):
        mean, spread = inputs
        return mean + keras.ops.exp(spread) * keras.random.normal(keras.ops.shape(mean))


def sampling_model():
    features = keras.Input((3,), name="features")
    code = Sampling()([keras.layers.Dense(2)(features), keras.layers.Dense(2)(features)])
    net = keras.Model(features, keras.layers.Dense(3)(code))
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def test_a_model_that_samples_is_trained_checked_and_resumed_exactly(tmp_path):
    settings = {"model": sampling_model, "test": TEST, "max_epochs": 3}
    whole = train(tmp_path / "whole", **settings)
    with pytest.raises(Crash):
        train(tmp_path / "part", callbacks=[CrashAt(2)], **settings)
    resumed = train(tmp_path / "part", **settings)
    assert resumed.history == whole.history
    assert resumed.metrics == whole.metrics
    verified = read_manifest(whole.export)["verified"]
    assert verified["batch_sizes"] == [32]
    assert verified["unchecked"] == {}


def fixed_rows(batch_shape):
    inputs = keras.Input(batch_shape=batch_shape)
    outputs = keras.layers.Dense(3)(keras.ops.reshape(inputs, (16, 3)))
    net = keras.Model(inputs, outputs)
    net.compile("adam", "mse")
    return net


def stateful():
    inputs = keras.Input(batch_shape=(16, 3))
    sequences = keras.layers.Reshape((3, 1))(inputs)
    net = keras.Model(inputs, keras.layers.GRU(3, stateful=True, name="memory")(sequences))
    net.compile("adam", "mse")
    return net


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: fixed_rows((16, 3)), "takes 16 rows at a time, but not 4.*no batch_size"),
        (lambda: fixed_rows((None, 3)), "takes 16 rows at a time, but not 4.*-1 rows"),
        (stateful, "The GRU 'memory' of the model .* stateful=True.*stateful=False"),
    ],
)
def test_a_model_bound_to_one_batch_size_is_refused_before_the_first_step(tmp_path, build, said):
    with pytest.raises(KerastrainError, match=said):
        train(tmp_path / "run", model=build, batch_size=16)
    assert not (tmp_path / "run" / "run.json").exists()
