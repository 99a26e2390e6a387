"""Intervals, and the metrics under weights that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.data.source import Classification, Regression
from kerastrain.errors import OptionsError
from kerastrain.export.bootstrap import difference_intervals, intervals
from kerastrain.export.scoring import score
from kerastrain.export.weighting import metrics_by_weights


def answers(rows, classes, *, seed=0, digits=None):
    """Probabilities that know something of the targets; rounded, they have ties."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), targets] += 1
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if digits is not None:
        p = np.round(p, digits) + 0.01
        p /= p.sum(1, keepdims=True)
    return {"probabilities": p.astype(np.float32)}, targets


@given(st.integers(1, 40), st.integers(2, 4), st.sampled_from([None, 1]), st.integers(0, 1000))
def test_whole_weights_give_what_scikit_learn_gives_for_repeated_rows(rows, classes, digits, seed):
    outputs, targets = answers(rows, classes, seed=seed, digits=digits)
    counts = np.random.default_rng(seed).integers(0, 3, rows)
    counts[0] += 1
    task = Classification(tuple(range(classes)))
    found = metrics_by_weights(task, outputs, targets)(counts.astype(np.float64))
    drawn = np.repeat(np.arange(rows), counts)
    expected = score(task, {"probabilities": outputs["probabilities"][drawn]}, targets[drawn])
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    # What scikit-learn does not define is not defined here either.
    assert not any(np.isfinite(found[name]) for name in set(found) - set(expected))


@given(st.integers(2, 30), st.integers(1, 2), st.integers(0, 1000))
def test_whole_weights_do_so_for_numbers_and_quantiles_too(rows, columns, seed):
    rng = np.random.default_rng(seed)
    targets, prediction = rng.normal(size=(2, rows, columns)) * 1e5 + 3e5
    task = Regression(quantiles=(0.25, 0.5))
    outputs = {"prediction": prediction, "quantiles": prediction[:, :1] + [[-1e4, 0.0]]}
    counts = rng.integers(1, 4, rows)
    found = metrics_by_weights(task, outputs, targets)(counts.astype(np.float64))
    drawn = np.repeat(np.arange(rows), counts)
    expected = score(task, {n: each[drawn] for n, each in outputs.items()}, targets[drawn])
    assert found == pytest.approx(expected)


def test_intervals_lie_around_the_metrics_and_are_the_same_again():
    outputs, targets = answers(400, 2)
    task = Classification(("no", "yes"))
    metrics = score(task, outputs, targets)
    found = intervals(task, outputs, targets, resamples=300)
    assert list(found) == [name for name in found if name in metrics]
    assert set(found) == set(metrics)
    for name in set(metrics) - {"ece"}:  # which noise only makes larger
        low, high = found[name]
        assert low < metrics[name] < high
    assert intervals(task, outputs, targets, resamples=300) == found
    assert intervals(task, outputs, targets, resamples=300, seed=1) != found


def test_the_interval_of_a_share_is_as_wide_as_the_binomial_distribution_says():
    outputs, targets = answers(2000, 2)
    task = Classification(("no", "yes"))
    accuracy = score(task, outputs, targets)["accuracy"]
    low, high = intervals(task, outputs, targets)["accuracy"]
    error = np.sqrt(accuracy * (1 - accuracy) / 2000)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    narrow_low, narrow_high = intervals(task, outputs, targets, confidence=0.5)["accuracy"]
    assert narrow_high - narrow_low == pytest.approx(2 * 0.674 * error, rel=0.15)


def test_most_intervals_of_a_mean_hold_the_truth():
    task, held = Regression(), 0
    for seed in range(100):
        errors = 5 + np.random.default_rng(seed).normal(size=200)
        found = intervals(task, {"prediction": errors}, np.zeros(200), resamples=200, seed=1)
        held += found["mae"][0] < 5 < found["mae"][1]
    assert 88 <= held <= 99


def test_rows_without_weight_are_not_there():
    outputs, targets = answers(300, 3)
    task = Classification((0, 1, 2))
    weights = (np.arange(300) < 30).astype(np.float32)
    few = intervals(task, outputs, targets, weights=weights, resamples=200)["loss"]
    all_rows = intervals(task, outputs, targets, resamples=200)["loss"]
    assert few[1] - few[0] > 2 * (all_rows[1] - all_rows[0])


def test_without_resamples_or_without_a_task_there_are_no_intervals():
    outputs, targets = answers(20, 2)
    assert intervals(Classification((0, 1)), outputs, targets, resamples=0) == {}
    assert intervals(None, outputs, targets, resamples=10) == {}


def test_what_most_draws_do_not_define_has_no_interval():
    outputs, _ = answers(40, 2)
    found = intervals(Classification((0, 1)), outputs, np.zeros(40, np.int64), resamples=50)
    assert "accuracy" in found and "roc_auc" not in found


@pytest.mark.parametrize("settings", [{"resamples": -1}, {"confidence": 1.0}, {"confidence": 0}])
def test_settings_that_mean_nothing_are_told(settings):
    outputs, targets = answers(20, 2)
    with pytest.raises(OptionsError, match="expected"):
        intervals(Classification((0, 1)), outputs, targets, **settings)


def test_a_difference_is_known_better_than_what_it_is_the_difference_of():
    task = Classification((0, 1, 2))
    before, targets = answers(400, 3)
    better = before["probabilities"].copy()
    wrong = np.flatnonzero(better.argmax(1) != targets)[:12]
    better[wrong] = np.eye(3)[targets[wrong]]
    after = {"probabilities": better}
    low, high = difference_intervals(task, before, after, targets)["accuracy"]
    assert 0 < low < 12 / 400 < high
    own = [intervals(task, each, targets)["accuracy"] for each in (before, after)]
    assert own[0][1] > own[1][0]  # which overlap
    assert high - low < own[0][1] - own[0][0]


def test_differences_are_paired_weighted_and_point_from_the_first_to_the_second():
    task = Classification((0, 1))
    before, targets = answers(50, 2)
    after, _ = answers(50, 2, seed=1)
    weights = np.where(np.arange(50) < 30, 1.0, 0.0)
    some = {"probabilities": before["probabilities"][:30]}
    assert difference_intervals(task, before, before, targets)["loss"] == (0.0, 0.0)
    forth = difference_intervals(task, before, after, targets, weights=weights)
    back = difference_intervals(task, after, before, targets, weights=weights)
    assert forth["loss"] == pytest.approx([-back["loss"][1], -back["loss"][0]])
    assert difference_intervals(task, some, some, targets[:30], resamples=0) == {}
