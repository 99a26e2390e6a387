from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from hand_made_versions import WEATHER, point_data, publish, save_scaled, save_weather, weather_data

from kerastrain.data.source import Classification, Examples, Regression
from kerastrain.errors import DataError, ExportError, OptionsError
from kerastrain.export.publish_condition import PublishCondition
from kerastrain.export.publish_decision import check, decide

DATA = weather_data()
GOOD, WORSE = partial(save_weather, threshold=0.0), partial(save_weather, threshold=0.7)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders in which nothing, a good version, and after it a worse one are deployed."""
    folder = tmp_path_factory.mktemp("bases")
    # Recorded metrics that are never asked for.
    publish(folder / "good", GOOD, metrics={"accuracy": 0.0}, data={"fingerprint": "this"})
    publish(folder / "worse", GOOD)
    publish(folder / "worse", WORSE, metrics={"accuracy": 1.0})
    return folder


def decided(bases, text, candidate, deployed, **arguments):
    folder = bases / candidate / max(p.name for p in (bases / candidate).iterdir())
    condition = PublishCondition.parse(text)
    return decide(condition, folder, bases / deployed, DATA, WEATHER, **arguments)


def test_what_beats_the_deployed_version_on_the_same_rows_is_published(bases):
    decision = decided(bases, "val_accuracy > deployed", "good", "worse")
    (judged,) = decision.judged
    assert decision.publish and decision.deployed == 2
    assert judged.candidate > judged.deployed and judged.rows == 50
    first, last = decision.text.splitlines()
    assert first == (
        f"val_accuracy > deployed: the candidate has {judged.candidate:.6g}, "
        f"version 2 {judged.deployed:.6g}, on 50 validation rows: holds"
    )
    assert last.startswith("published")
    assert json.loads(json.dumps(decision.to_json()))["terms"][0]["deployed"] == judged.deployed


def test_what_does_not_is_not(bases):
    decision = decided(bases, "val_accuracy > deployed", "worse", "good")
    assert not decision.publish
    assert decision.text.endswith("not published; version 1 stays deployed")
    # As good is not better.
    assert not decided(bases, "accuracy > deployed", "good", "good").publish
    assert decided(bases, "accuracy >= deployed", "good", "good").publish
    assert decided(bases, "loss < deployed + 0.1", "good", "good").publish


def test_every_term_has_to_hold_and_each_split_is_its_own(bases):
    decision = decided(bases, "val_accuracy > deployed and loss < 0.001", "good", "worse")
    assert [each.holds for each in decision.judged] == [True, False]
    assert not decision.publish
    of_splits = decided(bases, "val_loss < 9 and test_loss < 9", "good", "worse").judged
    assert of_splits[0].candidate != of_splits[1].candidate
    assert "on 50 test rows" in decision.text


def test_while_nothing_is_deployed_only_plain_numbers_are_to_be_met(bases):
    decision = decided(bases, "val_accuracy > deployed", "good", "nothing")
    assert decision.publish and decision.deployed is None
    assert "no version is deployed yet" in decision.text
    assert not decided(bases, "accuracy > deployed and loss < 1e-9", "good", "nothing").publish


def test_a_deployed_version_of_other_training_rows_is_told(bases):
    told = decided(bases, "accuracy >= deployed", "worse", "good", fingerprint="other").text
    assert "version 1 was trained on other data, or another split" in told
    told = decided(bases, "accuracy >= deployed", "worse", "good", fingerprint="this").text
    assert "other data" not in told


def test_numbers_are_compared_too_and_quantiles_only_where_both_have_them(tmp_path):
    data = point_data()
    publish(tmp_path, partial(save_scaled, factor=0.8), task=Regression("sum", (0.5,)))
    save_scaled(tmp_path / "candidate")
    condition = PublishCondition.parse("val_rmse < deployed")
    arguments = (tmp_path / "candidate", tmp_path, data, data.task)
    assert decide(condition, *arguments).publish
    with pytest.raises(OptionsError, match="no metric 'pinball'"):
        decide(PublishCondition.parse("pinball < deployed"), *arguments)


def other_columns(folder):
    save_weather(folder, columns=("temperature", "humidity"))


@pytest.mark.parametrize(
    ("save", "task", "says"),
    [
        (
            other_columns,
            WEATHER,
            "deployed version 1 cannot take .*'humidity', which the rows lack",
        ),
        (save_scaled, WEATHER, "cannot take the rows of these data.*'point'"),
        (
            GOOD,
            Classification(("warm", "cold")),
            "predicts the classes cold, warm, of which warm is positive, the",
        ),
        (GOOD, Regression("degrees"), "the deployed version 1 the number 'degrees'"),
        (GOOD, None, "What the deployed version 1 predicts is not recorded"),
    ],
)
def test_a_deployed_version_that_cannot_be_compared_is_told_early_and_late(
    bases, tmp_path, save, task, says
):
    publish(tmp_path, save, task=task)
    condition = PublishCondition.parse("val_accuracy > deployed")
    with pytest.raises(ExportError, match=says):
        check(condition, DATA, WEATHER, base=tmp_path)
    with pytest.raises(ExportError, match=says):
        decide(condition, bases / "good" / "1", tmp_path, DATA, WEATHER)
    # Whoever does not ask about it does not need it.
    assert decide(PublishCondition.parse("loss < 9"), bases / "good" / "1", tmp_path, DATA, WEATHER)


def test_images_of_another_size_are_told_with_both_shapes(tmp_path):
    publish(tmp_path, save_scaled, task=Regression("sum"))
    data = point_data()
    wider = np.zeros((len(data.test), 3), np.float32)
    data = dataclasses.replace(data, test=Examples(wider, data.test.targets))
    with pytest.raises(ExportError, match=r"'point' takes rows of shape \(2,\); these have \(3,\)"):
        check(PublishCondition.parse("rmse < deployed"), data, data.task, base=tmp_path)


def test_a_damaged_deployed_version_is_told_with_what_to_do(bases, tmp_path):
    publish(tmp_path, GOOD)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"broken")
    condition = PublishCondition.parse("accuracy > deployed")
    with pytest.raises(ExportError, match="version 1 cannot be compared with.*--rollback"):
        decide(condition, bases / "good" / "1", tmp_path, DATA, WEATHER)


def test_what_the_data_do_not_have_is_told_before_the_training(tmp_path):
    without = dataclasses.replace(DATA, validation=None)
    with pytest.raises(DataError, match="no validation split"):
        check(PublishCondition.parse("val_loss < deployed"), without, WEATHER, base=tmp_path)
    with pytest.raises(OptionsError, match="no metric 'rmse'"):
        check(PublishCondition.parse("rmse < deployed"), DATA, WEATHER, base=tmp_path)
    one_class = dataclasses.replace(
        DATA, test=Examples(DATA.test.inputs, np.zeros_like(DATA.test.targets))
    )
    with pytest.raises(OptionsError, match="no metric 'roc_auc'"):
        check(PublishCondition.parse("roc_auc > 0.5"), one_class, WEATHER, base=tmp_path)
    check(PublishCondition.parse("val_loss < deployed"), DATA, WEATHER, base=tmp_path)
