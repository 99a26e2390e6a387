from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from kerastrain.data.source import Classification, Regression
from kerastrain.errors import DataError, OptionsError
from kerastrain.export.evaluation import evaluate
from kerastrain.export.scoring import metric, score
from kerastrain.report import class_rows, metric_rows

P = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)


def test_classes_are_scored_by_accuracy_log_loss_and_f1():
    metrics = score(Classification((0, 1, 2)), {"probabilities": P}, np.array([0, 1, 1, 2]))
    assert set(metrics) == {
        "accuracy",
        "loss",
        "f1_macro",
        "roc_auc",
        "average_precision",
        "brier",
        "ece",
    }
    assert metrics["accuracy"] == 0.75
    assert metrics["loss"] == pytest.approx(-np.log([0.8, 0.5, 0.3, 0.8]).mean())
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_one_hot_targets_count_like_indices():
    task = Classification((0, 1, 2))
    targets = np.array([0, 1, 1, 2])
    one_hot = np.eye(3)[targets]
    assert score(task, {"probabilities": P}, one_hot) == score(task, {"probabilities": P}, targets)


def test_two_classes_have_an_area_under_the_curve_unless_only_one_occurs():
    task = Classification(("no", "yes"))
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32)
    metrics = score(task, {"probabilities": p}, np.array([[0], [1], [1]]))
    assert metrics["roc_auc"] == metrics["average_precision"] == 1.0
    alone = score(task, {"probabilities": p}, np.array([1, 1, 1]))
    assert "roc_auc" not in alone and "average_precision" not in alone


def test_the_area_of_several_classes_is_the_mean_of_each_against_the_rest():
    metrics = score(Classification((0, 1, 2)), {"probabilities": P}, np.array([0, 1, 1, 2]))
    assert metrics["roc_auc"] == 1.0
    p, targets = np.random.default_rng(0).dirichlet([1, 1, 1], 30), np.arange(30) % 3
    wins = [np.mean(p[targets == k, k][:, None] > p[targets != k, k][None, :]) for k in range(3)]
    area = score(Classification((0, 1, 2)), {"probabilities": p}, targets)["roc_auc"]
    assert area == pytest.approx(np.mean(wins))


def test_average_precision_is_of_the_positive_class():
    random = np.random.default_rng(0)
    p, targets = random.dirichlet([1, 1], 50), random.integers(0, 2, 50)
    for place, positive in enumerate(("fraud", "ok")):
        task = Classification(("fraud", "ok"), positive)
        expected = average_precision_score(targets == place, p[:, place])
        found = evaluate(task, {"probabilities": p}, targets, resamples=20)
        assert found.metrics["average_precision"] == expected
        low, high = found.intervals["average_precision"]
        assert low < expected < high
        assert found.calibration.event == f"the class is {positive}"
        assert found.to_json()["positive"] == positive
        assert f"average_precision of '{positive}'" in str(metric_rows(found.to_json()))
    assert Classification(("fraud", "ok")) == Classification(("fraud", "ok"), "ok")
    with pytest.raises(DataError, match="positive class is 'no'; expected one of two"):
        Classification(("fraud", "ok"), "no")


def test_average_precision_of_more_classes_is_their_mean_and_told_for_each():
    p, targets = np.random.default_rng(0).dirichlet([1, 1, 1], 30), np.arange(30) % 3
    found = evaluate(Classification(("a", "b", "c")), {"probabilities": p}, targets, resamples=0)
    each = [average_precision_score(targets == k, p[:, k]) for k in range(3)]
    assert found.metrics["average_precision"] == pytest.approx(np.mean(each))
    by_class = found.to_json()["by_class"]
    assert [one["average_precision"] for one in by_class.values()] == each
    assert [row[0] for row in class_rows(found.to_json())[1:]] == ["a", "b", "c"]


def test_brier_is_of_the_second_of_two_classes_and_of_all_of_more():
    two = np.array([[0.8, 0.2], [0.4, 0.6]])
    task = Classification(("no", "yes"))
    brier = score(task, {"probabilities": two}, np.array([0, 1]))["brier"]
    assert brier == pytest.approx((0.2**2 + 0.4**2) / 2)
    metrics = score(Classification((0, 1, 2)), {"probabilities": P[:1]}, np.array([0]))
    assert metrics["brier"] == pytest.approx(0.2**2 + 0.1**2 + 0.1**2)


def test_a_row_of_weight_two_counts_like_two_rows():
    task, targets = Classification((0, 1, 2)), np.array([0, 1, 1, 2])
    twice = [0, 0, 1, 2, 2, 2, 3]
    weighted = score(task, {"probabilities": P}, targets, weights=np.array([2.0, 1, 3, 1]))
    repeated = score(task, {"probabilities": P[twice]}, targets[twice])
    assert weighted == pytest.approx(repeated)
    numbers, truth = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.5, 2.5, 3.0, 9.0])
    weighted = score(
        Regression(), {"prediction": numbers}, truth, weights=np.array([[2.0], [1], [3], [1]])
    )
    repeated = score(Regression(), {"prediction": numbers[twice]}, truth[twice])
    assert weighted == pytest.approx(repeated)


def test_quantiles_are_scored_by_pinball_loss_and_coverage_beside_the_median():
    task = Regression(quantiles=(0.1, 0.5, 0.9))
    quantiles = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]], np.float32)
    outputs = {"prediction": quantiles[:, 1], "quantiles": quantiles}
    metrics = score(task, outputs, np.array([[1.0], [5.0]]))
    assert metrics["mae"] == 1.5
    assert metrics["coverage_0.1"] == 0.0
    assert metrics["coverage_0.5"] == metrics["coverage_0.9"] == 0.5
    assert metrics["pinball_0.1"] == pytest.approx((0.1 * 1 + 0.1 * 5) / 2)
    assert metrics["pinball_0.9"] == pytest.approx((0.1 * 1 + 0.9 * 1) / 2)
    each = [metrics[f"pinball_{level}"] for level in task.quantiles]
    assert metrics["pinball"] == pytest.approx(np.mean(each))


def test_one_metric_may_be_asked_for_and_a_wrong_name_is_told():
    task = Classification((0, 1, 2))
    assert metric(task, "accuracy", {"probabilities": P}, np.array([0, 1, 1, 2])) == 0.75
    with pytest.raises(OptionsError, match=r"no metric 'acuracy'.*Did you mean 'accuracy'"):
        metric(task, "acuracy", {"probabilities": P}, np.array([0, 1, 1, 2]))


def test_numbers_are_scored_in_their_own_units():
    metrics = score(
        Regression(), {"prediction": np.array([100.0, 250.0])}, np.array([[100.0], [200.0]])
    )
    assert metrics == pytest.approx({"rmse": np.sqrt(1250), "mae": 25.0, "r2": 0.5})


def test_what_one_row_does_not_define_is_left_out():
    metrics = score(Regression(), {"prediction": np.array([1.0])}, np.array([2.0]))
    assert set(metrics) == {"rmse", "mae"}


def test_without_a_task_nothing_is_scored():
    assert score(None, {"output": P}, np.zeros(4)) == {}
