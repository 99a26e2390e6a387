"""Stopping criteria in real runs: any of them, on any metric, across interruptions."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerastrain
from kerastrain.errors import ObjectiveError, OptionsError, ResumeError
from kerastrain.training.stopping import (
    Criterion,
    Patience,
    Significance,
    Target,
    outcome,
    parse_criterion,
    read_evaluations,
)
from kerastrain.workdir import Workdir

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 250).astype(np.int32)
POINTS = (np.eye(3)[LABELS] * 2 + RNG.normal(size=(250, 3))).astype(np.float32)
TRAIN, VALIDATION = (POINTS[:200], LABELS[:200]), (POINTS[200:], LABELS[200:])
EPOCH = 7  # 200 examples in batches of 32
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Exports are checked in this process: quick. The fresh one has its own tests."""
    check_here(monkeypatch)


def model(optimizer=None, metrics=("accuracy",)):
    features = keras.Input((3,), name="features")
    x = keras.layers.Dense(8, activation="relu")(features)
    net = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    net.compile(optimizer or keras.optimizers.Adam(0.03), LOSS, metrics=list(metrics))
    return net


def train(workdir, **changed):
    settings = {
        "validation": VALIDATION,
        "max_epochs": 30,
        "batch_size": 32,
        "verbose": 0,
        "jit": "off",
        "checkpoint_every": "1epochs",
        **changed,
    }
    data = settings.pop("data", TRAIN)
    return kerastrain.train(settings.pop("model", model), data, workdir=workdir, **settings)


class Crash(Exception):
    pass


class CrashAt(keras.callbacks.Callback):
    """Ends the program's run in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Crash


def stopped_file(workdir):
    return json.loads((workdir / "stopped.json").read_text())


RULES = [
    "gl(3) and after(epochs=4) or target(0.2)",
    "significance(z=1, patience=2)",
    *(
        pytest.param(rule, marks=pytest.mark.slow)
        for rule in (
            "patience(2) or baseline(0.1, epochs=9)",
            "pq(0.5, k=3) or up(2, k=2)",
            "smoothed(patience(2, min_delta=0.01, relative=True), beta=0.6)",
            "plateau(4, epsilon=0.05) or divergence(deviations=4)",
        )
    ),
]


@pytest.mark.parametrize("rule", RULES)
def test_an_interrupted_run_stops_where_an_undisturbed_one_does(tmp_path, rule):
    whole = train(tmp_path / "whole", stop=rule, callbacks=[CrashAt(99)])
    with pytest.raises(Crash):
        train(tmp_path / "run", stop=rule, callbacks=[CrashAt(2)])
    resumed = train(tmp_path / "run", stop=rule, callbacks=[CrashAt(99)])
    assert resumed.stopped == whole.stopped and "Stopped at step" in whole.stopped
    assert (resumed.history, resumed.best) == (whole.history, whole.best)
    # And so does a replay of what was recorded.
    record = read_evaluations(Workdir(tmp_path / "run").metrics_file)
    found = outcome(parse_criterion(rule), record, kerastrain.Objective("val_loss", "min"))
    names = " and ".join(reading.criterion for reading in found.verdicts[-1].because)
    assert whole.stopped == f"Stopped at step {found.stopped_at.step} by {names}: {found.says}."


def test_it_is_written_which_criterion_stopped_on_what_numbers_and_what_was_kept(tmp_path):
    result = train(tmp_path / "run", stop="target(0.5) or patience(20)")
    found = stopped_file(tmp_path / "run")
    assert found["criteria"] == ["target(0.5)"]
    assert found["rule"] == "target(0.5) or patience(20)"
    assert (found["step"], found["says"]) == (result.step, result.stopped)
    assert found["last_evaluation"]["val_loss"] == result.history[-1]["val_loss"] <= 0.5
    assert found["best"] == dict(result.best)
    assert found["restored"]["step"] == result.best["step"]
    assert (tmp_path / "run" / (found["restored"]["weights"] + ".index")).exists()
    target = found["readings"][0]
    assert (target["stops"], target["limit"]) == (True, 0.5)


def test_a_run_that_goes_to_its_budget_says_that(tmp_path):
    train(tmp_path / "run", stop="never", max_epochs=2)
    found = stopped_file(tmp_path / "run")
    assert (found["ended"], found["criteria"], found["readings"]) == ("budget", [], [])
    assert "max_epochs=2 reached" in found["says"]


def test_tensorboard_shows_a_criterion_beside_its_limit(tmp_path):
    result = train(tmp_path / "run", stop="gl(3)")
    curves = {}
    for name in ("stopping", "stopping_limit"):
        events = EventAccumulator(str(tmp_path / "run/tensorboard" / name)).Reload()
        points = events.Tensors("stopping/gl(3)")
        curves[name] = [float(tf.make_ndarray(point.tensor_proto)) for point in points]
    assert len(curves["stopping"]) == result.step / EPOCH
    assert set(curves["stopping_limit"]) == {3.0}
    assert curves["stopping"][-1] > 3 >= max(curves["stopping"][:-1])


def test_any_metric_that_the_model_reports_can_be_looked_at_and_several_at_once(tmp_path):
    one_hot = [np.eye(3, dtype=np.float32)[labels] for labels in (LABELS[:200], LABELS[200:])]

    def compiled():
        net = model()
        metrics = [
            keras.metrics.F1Score(average="macro", name="f1"),
            keras.metrics.AUC(from_logits=True, name="auc"),
            keras.metrics.RootMeanSquaredError(name="rmse"),
            keras.metrics.R2Score(name="r2"),
        ]
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        net.compile(keras.optimizers.Adam(0.03), loss, metrics=metrics)
        return net

    result = train(
        tmp_path / "run",
        model=compiled,
        data=(POINTS[:200], one_hot[0]),
        validation=(POINTS[200:], one_hot[1]),
        objective="val_f1",
        stop="target(0.6) and target(0.8, monitor='val_auc') or patience(3, monitor='val_r2')"
        " or gl(1000, monitor='val_rmse')",
    )
    assert result.best["name"] == "val_f1" and "Stopped" in result.stopped
    assert {"val_f1", "val_auc", "val_rmse", "val_r2"} <= set(result.history[0])


def test_a_metric_that_is_not_reported_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ObjectiveError, match="'val_auc', which is not among"):
        train(tmp_path / "run", stop="target(0.9, monitor='val_auc')")
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_evidence_of_a_gradient_stops_plain_sgd_without_a_validation_set(tmp_path):
    def plain():
        return model(keras.optimizers.SGD(0.5))

    settings = {"model": plain, "validation": None, "max_epochs": 200, "stop": "evidence"}
    result = train(tmp_path / "run", **settings)
    assert "only noise" in result.stopped and result.step < 200 * EPOCH
    values = [record["evidence"] for record in result.history]
    assert values[0] < 0 < values[-1]


def test_evidence_is_refused_where_it_is_not_derived_for(tmp_path):
    with pytest.raises(OptionsError, match="derived for plain SGD.*trains with Adam"):
        train(tmp_path / "run", stop="evidence")
    with pytest.raises(OptionsError, match="SGD and momentum"):
        momentum = lambda: model(keras.optimizers.SGD(0.1, momentum=0.9))  # noqa: E731
        train(tmp_path / "run", model=momentum, stop="patience(3) or evidence")


def test_the_recorded_standard_error_is_that_of_the_examples_losses(tmp_path):
    class Keep(keras.callbacks.Callback):
        losses = []  # noqa: RUF012

        def on_epoch_end(self, epoch, logs=None):
            logits = self.model(VALIDATION[0], training=False)
            each = keras.losses.sparse_categorical_crossentropy(VALIDATION[1], logits, True)
            self.losses.append(np.asarray(each))

    keep = Keep()
    # With z = 0 every improvement is the next reference.
    result = train(tmp_path / "run", stop=Significance(z=0, patience=30), callbacks=[keep],
                   max_epochs=4)  # fmt: skip
    found = [record["val_loss_difference_error"] for record in result.history]
    means = [losses.mean() for losses in keep.losses]
    expected, reference = [], 0
    for i in range(1, 4):
        difference = keep.losses[reference].astype(np.float64) - keep.losses[i]
        expected.append(difference.std(ddof=1) / np.sqrt(len(difference)))
        reference = i if means[i] < means[reference] else reference
    assert found[0] is None
    assert found[1:] == pytest.approx(expected, rel=1e-4)


def test_evaluations_every_so_many_seconds_come_at_the_same_steps_after_a_restart(tmp_path):
    settings = {"evaluate_every": "0.005s", "max_epochs": 8}
    first = train(tmp_path / "run", callbacks=[CrashAt(99)], **settings)
    choice = json.loads((tmp_path / "run" / "executor.json").read_text())
    steps = [record["step"] for record in first.history]
    every = max(1, round(0.005 / choice["step_seconds"]))
    assert steps == sorted({*range(every, first.step, every), first.step})


def test_a_fixed_part_of_the_validation_examples_can_be_evaluated(tmp_path):
    settings = {"max_epochs": 2, "seed": 3}
    part = train(tmp_path / "part", evaluate_examples=20, **settings)
    again = train(tmp_path / "again", evaluate_examples=20, **settings)
    full = train(tmp_path / "full", evaluate_examples=5000, **settings)
    assert part.history == again.history
    hits = part.history[0]["val_accuracy"] * 20
    assert hits == pytest.approx(round(hits), abs=1e-4)
    assert part.history[0]["val_loss"] != full.history[0]["val_loss"]
    assert part.history[0]["loss"] == full.history[0]["loss"]


def test_another_rule_goes_on_as_if_the_run_had_had_it_from_the_beginning(tmp_path):
    rule = "patience(6) or target(0.01)"
    whole = train(tmp_path / "whole", stop=rule)
    first = train(tmp_path / "run", stop="patience(1)")
    assert first.step < whole.step
    longer = train(tmp_path / "run", stop=rule)
    assert (longer.history, longer.step, longer.best) == (whole.history, whole.step, whole.best)
    assert train(tmp_path / "run", stop=rule).already_finished


def test_a_rule_that_would_have_stopped_the_run_before_is_refused_with_the_step(tmp_path):
    train(tmp_path / "run", stop="never", max_epochs=4)
    with pytest.raises(ResumeError, match=r"'target\(1.5\)' now, which would have stopped .* 7;"):
        train(tmp_path / "run", stop="target(1.5)", max_epochs=4)


@pytest.mark.slow
def test_a_rule_that_the_record_cannot_answer_is_an_error(tmp_path):
    train(tmp_path / "run", stop="never", max_epochs=2)
    with pytest.raises(ObjectiveError, match="val_loss_difference_error"):
        train(tmp_path / "run", stop="significance", max_epochs=4)


def test_a_rule_that_measures_nothing_finds_what_one_that_measured_has_left(tmp_path):
    plain = {"model": lambda: model(keras.optimizers.SGD(0.1))}
    first = train(tmp_path / "run", stop="evidence or patience(1)", max_epochs=60, **plain)
    longer = train(tmp_path / "run", stop="patience(50)", max_epochs=60, **plain)
    assert len(longer.history) > len(first.history)
    best = min(longer.history, key=lambda record: record["val_loss"])
    assert longer.best["value"] == best["val_loss"] and longer.best["step"] == best["step"]


def test_a_rule_that_stops_at_the_last_evaluation_stops_there(tmp_path):
    first = train(tmp_path / "run", stop="never", max_epochs=3)
    value = first.history[-1]["val_loss"]
    again = train(tmp_path / "run", stop=f"target({value!r})", max_epochs=9)
    assert again.step == first.step and again.history == first.history


def test_what_a_callback_logs_does_not_change_where_an_evaluation_was(tmp_path):
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update(epoch=epoch, step=0, seconds=1.0, mine=2.0)

    result = train(tmp_path / "run", callbacks=[Logs()], max_epochs=2)
    assert [(r["step"], r["epoch"], r["mine"]) for r in result.history] == [(7, 1, 2), (14, 2, 2)]


class Twice(Criterion):
    """A criterion of somebody's own: stops at the second evaluation."""

    name = "twice"

    def verdicts(self, evaluations, objective):
        for evaluation in evaluations:
            yield self._verdict(evaluation.index >= 1, f"{objective.name} came twice")


def test_a_criterion_of_ones_own_works_like_any_other(tmp_path):
    result = train(tmp_path / "run", stop=Twice() | Target(0.0))
    assert result.stopped == "Stopped at step 14 by twice: val_loss came twice."
    assert train(tmp_path / "run", stop=Twice() | Target(0.0)).already_finished


@pytest.mark.slow
def test_an_early_stopping_callback_brings_its_own_rule(tmp_path):
    callback = kerastrain.EarlyStopping("val_loss", stop=Patience(2) | Target(0.3))
    result = train(tmp_path / "run", callbacks=[callback])
    assert stopped_file(tmp_path / "run")["rule"] == "patience(2) or target(0.3)"
    assert "Stopped" in result.stopped
    with pytest.raises(OptionsError, match="decide the same thing"):
        train(tmp_path / "other", callbacks=[callback], patience=3)


def test_a_rule_that_cannot_be_read_is_an_error_at_once(tmp_path):
    with pytest.raises(OptionsError, match="Did you mean 'patience'"):
        train(tmp_path / "run", stop="pateince(3)")
    assert not (tmp_path / "run").exists()
