from __future__ import annotations

import numpy as np
import pytest

from kerastrain.data.source import Classification, Regression
from kerastrain.export.scoring import score

P = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)


def test_classes_are_scored_by_accuracy_log_loss_and_f1():
    metrics = score(Classification((0, 1, 2)), {"probabilities": P}, np.array([0, 1, 1, 2]))
    assert set(metrics) == {"accuracy", "loss", "f1_macro"}
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
    assert score(task, {"probabilities": p}, np.array([[0], [1], [1]]))["roc_auc"] == 1.0
    assert "roc_auc" not in score(task, {"probabilities": p}, np.array([1, 1, 1]))


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
