"""Every end is a good end: signals, budgets, continuations, losses that are not finite."""

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here

import kerastrain
from kerastrain.cli.main import main
from kerastrain.errors import (
    CheckpointError,
    DataError,
    Interrupted,
    OptionsError,
    ResumeError,
    TrainingError,
)
from kerastrain.export import verification
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.starts import read_starts
from kerastrain.workdir import Workdir

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 250).astype(np.int32)
POINTS = (np.eye(3)[LABELS] * 2 + RNG.normal(size=(250, 3))).astype(np.float32)
TRAIN, VALIDATION = (POINTS[:200], LABELS[:200]), (POINTS[200:], LABELS[200:])
# 200 examples in batches of 32.
EPOCH = 7


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Exports are checked in this process: quick. The fresh one has its own tests."""
    check_here(monkeypatch)


def model(learning_rate=0.01, optimizer=keras.optimizers.Adam):
    features = keras.Input((3,), name="features")
    x = keras.layers.Dense(8, activation="relu")(features)
    x = keras.layers.Dropout(0.1)(x)
    net = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer(learning_rate), loss, metrics=["accuracy"])
    return net


def train(workdir, **changed):
    settings = {
        "validation": VALIDATION,
        "max_epochs": 6,
        "batch_size": 32,
        "verbose": 0,
        "jit": "off",
        "checkpoint_every": "1epochs",
        **changed,
    }
    data = settings.pop("data", TRAIN)
    return kerastrain.train(settings.pop("model", model), data, workdir=workdir, **settings)


def send(number):
    os.kill(os.getpid(), number)


class SignalAt(keras.callbacks.Callback):
    """Sends a signal when an event comes for the `count`-th time."""

    def __init__(self, event, count, number=signal.SIGTERM):
        super().__init__()
        heard = []  # Not an attribute: those that are numbers go on where they were.

        def hear(*arguments, **settings):
            heard.append(True)
            if len(heard) == count:
                send(number)

        setattr(self, event, hear)


def steps_saved(workdir):
    return CheckpointFiles(Workdir(workdir).latest_checkpoints).steps()


# Signals


@pytest.mark.parametrize("event", ["on_epoch_end", "on_epoch_begin", "on_test_end"])
def test_a_signal_is_obeyed_and_the_run_goes_on_exactly(tmp_path, event):
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"SIGTERM at step \d+.*Run the same command") as error:
        train(tmp_path / "run", callbacks=[SignalAt(event, 3)])
    assert error.value.exit_status == 143
    assert train(tmp_path / "run", callbacks=[SignalAt(event, 99)]).history == whole.history


def test_a_signal_breaks_an_evaluation_off_which_is_made_by_the_next_start(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_test_begin", 3)])
    assert steps_saved(tmp_path / "run")[-1] == 3 * EPOCH
    evaluated = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in evaluated) == 2 * EPOCH
    assert train(tmp_path / "run", callbacks=[SignalAt("on_test_begin", 99)]).history == (
        whole.history
    )


def test_an_evaluation_can_be_broken_off_between_its_calls():
    asked = []

    def is_broken_off():
        asked.append(True)
        return len(asked) == 3

    import small_runs as small

    examples = small.blobs(5000)
    state = small.state_of(small.classifier(), examples)
    evaluator = Evaluator(state, examples, batch_size=1000)
    assert evaluator(jit=False, is_broken_off=is_broken_off) is None
    whole = evaluator(jit=False)
    assert whole is not None and whole["accuracy"] > 0
    assert evaluator(jit=False) == whole


def test_a_signal_during_the_export_leaves_nothing_half_and_the_next_start_exports(
    tmp_path, monkeypatch
):
    def signalled(folder):
        send(signal.SIGINT)

    checks = iter([verification.check, signalled])  # The first is the rehearsal's.
    with monkeypatch.context() as patch:
        check_here(patch, lambda folder: next(checks)(folder))
        with pytest.raises(Interrupted, match="while exporting") as error:
            train(tmp_path / "run")
    assert error.value.exit_status == 130
    assert list((tmp_path / "run" / "export" / "run").iterdir()) == []
    assert train(tmp_path / "run").export.name == "1"


def test_a_signal_during_start_up_is_obeyed_at_once(tmp_path):
    def signalled():
        send(signal.SIGTERM)
        pytest.fail("it went on")

    with pytest.raises(Interrupted, match="while starting"):
        train(tmp_path / "run", model=signalled)
    assert train(tmp_path / "run").step == 6 * EPOCH


def test_every_start_and_how_it_ended_is_recorded(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 2)])
    with pytest.raises(ResumeError):
        train(tmp_path / "run", batch_size=16)
    train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 99)])
    starts = read_starts(Workdir(tmp_path / "run"))
    assert [start.ended for start in starts] == ["SIGTERM", "finished"]
    assert [start.step for start in starts] == [2 * EPOCH, 6 * EPOCH]


# Budgets


def test_max_seconds_ends_with_an_evaluation_and_an_export_and_more_of_them_go_on(tmp_path):
    settings = {"max_epochs": 100_000}
    short = train(tmp_path / "run", max_seconds=8, **settings)
    assert "max_seconds=8 nearly used up" in short.stopped
    assert short.history[-1]["step"] == short.step and short.export.is_dir()
    again = train(tmp_path / "run", max_seconds=8, **settings)
    assert again.already_finished
    longer = train(tmp_path / "run", max_seconds=16, **settings)
    assert longer.step > short.step and longer.history[: len(short.history)] == short.history


def test_a_budget_that_is_used_up_at_the_start_still_gives_what_there_is(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 2)])
    result = train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 99)], max_seconds=0.001)
    assert result.step == 2 * EPOCH and result.export.is_dir()


# Going on


def test_more_epochs_go_on_with_a_run_that_stopped_early(tmp_path):
    stopped = train(tmp_path / "run", patience=1, max_epochs=50)
    assert "did not improve" in stopped.stopped
    longer = train(tmp_path / "run", patience=1, max_epochs=50, more_epochs=3)
    assert stopped.step < longer.step <= stopped.step + 3 * EPOCH
    assert longer.history[: len(stopped.history)] == stopped.history
    again = train(tmp_path / "run", patience=1, max_epochs=50, more_epochs=3)
    assert again.already_finished and again.step == longer.step


def test_more_epochs_are_counted_once_however_often_the_run_is_started(tmp_path):
    for name in ("whole", "run"):
        train(tmp_path / name, max_epochs=2, callbacks=[SignalAt("on_epoch_end", 99)])
    more = {"max_epochs": 2, "more_epochs": 4}
    whole = train(tmp_path / "whole", callbacks=[SignalAt("on_epoch_end", 99)], **more)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 2)], **more)
    resumed = train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 99)], **more)
    assert resumed.history == whole.history and resumed.step == 6 * EPOCH


def test_more_epochs_need_a_run_that_has_ended(tmp_path):
    with pytest.raises(OptionsError, match="the one in .* has not"):
        train(tmp_path / "run", more_epochs=2)


def test_a_larger_patience_goes_on_as_if_it_had_been_so_from_the_beginning(tmp_path):
    settings = {"max_epochs": 60, "model": lambda: model(0.1)}
    whole = train(tmp_path / "whole", patience=4, **settings)
    first = train(tmp_path / "run", patience=1, **settings)
    assert first.step < whole.step
    longer = train(tmp_path / "run", patience=4, **settings)
    assert (longer.history, longer.step, longer.best) == (whole.history, whole.step, whole.best)
    with pytest.raises(ResumeError, match="'patience.2.' now, which would have stopped"):
        train(tmp_path / "run", patience=2, **settings)


def test_the_first_command_does_not_train_again_after_more_epochs(tmp_path):
    train(tmp_path / "run", patience=1, max_epochs=50)
    longer = train(tmp_path / "run", patience=1, max_epochs=50, more_epochs=1)
    again = train(tmp_path / "run", patience=1, max_epochs=50)
    assert again.already_finished and again.step == longer.step


def test_more_epochs_are_beyond_the_newest_end(tmp_path):
    train(tmp_path / "run", max_epochs=2)
    assert train(tmp_path / "run", max_epochs=2, more_epochs=3).step == 5 * EPOCH
    assert train(tmp_path / "run", max_epochs=2, more_epochs=2).step == 7 * EPOCH


def test_a_finished_run_that_cannot_go_on_stays_finished(tmp_path):
    train(tmp_path / "run", max_epochs=2)
    for file in (tmp_path / "run" / "checkpoints" / "latest").glob("ckpt-*.index"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="None of the checkpoints"):
        train(tmp_path / "run", max_epochs=2, more_epochs=3)
    assert train(tmp_path / "run", max_epochs=2).already_finished


def test_a_time_that_is_used_up_before_the_first_evaluation_is_said_to_be(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_train_begin", 1)])
    with pytest.raises(TrainingError, match="no evaluation yet.*Give the run more time"):
        train(tmp_path / "run", callbacks=[SignalAt("on_train_begin", 99)], max_seconds=0.001)


# Losses that are not finite


def nan_while_faster_than(rate, *, after):
    """A step whose loss is NaN after so many steps, unless the learning rate is low enough."""

    def step(state, batch):
        loss = kerastrain.supervised_step(state, batch)
        is_late = state.optimizer.iterations > after
        is_fast = state.optimizer.learning_rate > rate
        return tf.where(is_late & is_fast, tf.constant(float("nan")), loss)

    return step


ROLLBACK = {
    "step": nan_while_faster_than(0.003, after=17),
    "on_nonfinite": "rollback",
    "checkpoint_every": "2steps",
    "keep_last": 1,
}


def test_a_rollback_goes_back_to_the_last_evaluation_with_half_the_learning_rate(tmp_path, caplog):
    result = train(tmp_path / "run", **ROLLBACK)
    assert result.step == 6 * EPOCH
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["rollbacks"]
    # 0.01 -> 0.005 -> 0.0025
    assert recorded == [{"bad_step": 17, "to_step": 14}] * 2
    assert "back to step 14 with half the learning rate, 0.0025 (2 of 3 times)" in caplog.text
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert rates[14] == pytest.approx(0.01) and rates[21] == pytest.approx(0.0025)
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [
        7,
        14,
        21,
        28,
        35,
        42,
    ]


@pytest.mark.parametrize(
    "moment",
    # The third and the fifth round begin once more after the rollbacks.
    [("on_epoch_begin", 3), ("on_train_begin", 2), ("on_train_begin", 3), ("on_epoch_begin", 4)],
)
def test_a_run_interrupted_around_a_rollback_ends_as_one_that_was_not(tmp_path, moment):
    quiet = [SignalAt("on_epoch_begin", 99)]
    whole = train(tmp_path / "whole", callbacks=quiet, **ROLLBACK)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt(*moment)], **ROLLBACK)
    assert train(tmp_path / "run", callbacks=quiet, **ROLLBACK).history == whole.history


def test_keras_callbacks_go_back_with_a_rollback(tmp_path):
    def callbacks(moment):
        plateau = keras.callbacks.ReduceLROnPlateau(factor=0.9, patience=1, min_delta=0.5)
        return [plateau, SignalAt("on_train_begin", moment)]

    whole = train(tmp_path / "whole", callbacks=callbacks(99), **ROLLBACK)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=callbacks(2), **ROLLBACK)
    assert train(tmp_path / "run", callbacks=callbacks(99), **ROLLBACK).history == whole.history
    rates = [
        [json.loads(s)["learning_rate"] for s in (tmp_path / n / "metrics.jsonl").open()]
        for n in ("whole", "run")
    ]
    assert rates[0] == rates[1]


def test_what_a_rollback_leaves_behind_is_set_aside_and_can_be_gone_back_to(tmp_path):
    run = tmp_path / "run"

    settings = {**ROLLBACK, "keep_last": 9}
    train(run, **settings)
    files = CheckpointFiles(Workdir(run).latest_checkpoints)
    assert 16 in files.steps_set_aside() and 16 not in files.steps()
    assert main(["checkpoints", f"--workdir={run}", "--restore=16"]) == 0
    # That of the second attempt, which knows of the first rollback only.
    assert json.loads((run / "rollbacks.json").read_text())["rollbacks"] == [
        {"bad_step": 17, "to_step": 14}
    ]
    assert train(run, **settings).step == 6 * EPOCH


def test_a_schedule_is_slowed_down_too(tmp_path):
    def scheduled():
        return model(keras.optimizers.schedules.ExponentialDecay(0.01, 1000, 0.9))

    result = train(tmp_path / "run", **{**ROLLBACK, "model": scheduled})
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert result.step == 6 * EPOCH
    assert 0.002 < lines[-1]["learning_rate"] < 0.0025


def test_after_three_rollbacks_the_run_stops_with_the_best_before(tmp_path):
    step = nan_while_faster_than(0.0, after=17)
    result = train(tmp_path / "run", **{**ROLLBACK, "step": step})
    assert "not a finite number at step 17" in result.stopped
    assert result.best["step"] <= 14 and result.export.is_dir()
    assert len(json.loads((tmp_path / "run/rollbacks.json").read_text())["rollbacks"]) == 3
    assert train(tmp_path / "run", **{**ROLLBACK, "step": step}).already_finished


# Before the first step


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x, y: x.__setitem__((5, 2), np.nan),
            r"1 of 200 rows .* inputs of train \(column 2",
        ),
        (lambda x, y: x.__setitem__((3, 0), np.inf), r"the first is row 3"),
    ],
)
def test_data_that_are_not_finite_are_named_with_their_column(tmp_path, spoil, message):
    x, y = TRAIN[0].copy(), TRAIN[1].copy()
    spoil(x, y)
    with pytest.raises(DataError, match=message):
        train(tmp_path / "run", data=(x, y))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_model_that_knows_what_to_do_with_missing_values_gets_them(tmp_path):
    class Filled(keras.layers.Layer):
        def call(self, x):
            return keras.ops.where(keras.ops.isfinite(x), x, 0.0)

    def filling():
        features = keras.Input((3,), name="features")
        net = keras.Model(features, keras.layers.Dense(3)(Filled()(features)))
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return net

    x = TRAIN[0].copy()
    x[5, 2] = np.nan
    assert train(tmp_path / "run", data=(x, TRAIN[1]), model=filling, max_epochs=1).step == EPOCH


# What stays


def test_the_newest_the_best_and_every_so_often_stay_together(tmp_path):
    result = train(
        tmp_path / "run", max_epochs=12, keep_last=2, keep_best=1, keep_every="5epochs",
        model=lambda: model(0.5),
    )  # fmt: skip
    best = result.best["step"]
    # The last one before the best could make its weights again.
    wanted = {11 * EPOCH, 12 * EPOCH, 5 * EPOCH, 10 * EPOCH, best, best - EPOCH}
    assert set(steps_saved(tmp_path / "run")) == wanted


def test_damaged_best_weights_are_made_again_from_an_earlier_checkpoint(tmp_path, caplog):
    quiet = [SignalAt("on_epoch_end", 99)]
    whole = train(tmp_path / "whole", callbacks=quiet)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 4)])
    best = tmp_path / "run" / "checkpoints" / "best"
    newest = max(best.glob("ckpt-*.data-*"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert train(tmp_path / "run", callbacks=quiet).history == whole.history
    assert "is damaged (../best/ckpt-" in caplog.text


def test_best_weights_older_than_the_newest_states_are_made_again_too(tmp_path):
    rate = {"model": lambda: model(0.5), "max_epochs": 12}
    quiet = [SignalAt("on_epoch_end", 99)]
    whole = train(tmp_path / "whole", callbacks=quiet, **rate)
    assert whole.best["step"] < 8 * EPOCH
    with pytest.raises(Interrupted):
        train(tmp_path / "run", callbacks=[SignalAt("on_epoch_end", 11)], **rate)
    best = tmp_path / "run" / "checkpoints" / "best"
    (best / f"ckpt-{whole.best['step']}.data-00000-of-00001").write_bytes(b"")
    resumed = train(tmp_path / "run", callbacks=quiet, **rate)
    assert (resumed.history, resumed.best) == (whole.history, whole.best)


def test_two_runs_with_one_early_stopping_do_not_disturb_each_other(tmp_path):
    own = kerastrain.EarlyStopping(patience=9, directory=tmp_path / "shared")
    whole = train(tmp_path / "whole", callbacks=[own, SignalAt("on_epoch_end", 99)])
    with pytest.raises(Interrupted):
        train(tmp_path / "a", callbacks=[own, SignalAt("on_epoch_end", 3)])
    train(tmp_path / "b", callbacks=[own, SignalAt("on_epoch_end", 99)], max_epochs=2)
    resumed = train(tmp_path / "a", callbacks=[own, SignalAt("on_epoch_end", 99)])
    assert resumed.history == whole.history


def test_how_long_saves_held_the_training_up_is_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard/train"), {"tensors": 0}).Reload()
    saves = events.Tensors("checkpoint_blocking_seconds")
    assert [event.step for event in saves] == [0, 7, 14, 21, 28, 35, 42]
    assert all(float(tf.make_ndarray(event.tensor_proto)) > 0 for event in saves)
