from __future__ import annotations

import contextlib
import math
import subprocess
import sys

import pytest
from hand_made_versions import point_data, weather_data
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.data.source import Classification, Regression
from kerastrain.errors import OptionsError
from kerastrain.export.publish_condition import HIGHER, LOWER, PublishCondition, Term


def parse(text):
    return PublishCondition.parse(text)


def test_a_metric_is_compared_with_the_deployed_versions_or_with_a_number():
    assert parse("val_accuracy > deployed").terms == (
        Term("accuracy", "validation", ">", True, 0.0),
    )
    assert parse("accuracy>=deployed-0.005 and test_loss<3e-1 and pinball_0.5 < 2").terms == (
        Term("accuracy", "test", ">=", True, -0.005),
        Term("loss", "test", "<", False, 0.3),
        Term("pinball_0.5", "test", "<", False, 2.0),
    )
    assert parse("r2 > -0.5").terms[0].number == -0.5


TERMS = st.builds(
    Term,
    metric=st.sampled_from(HIGHER),
    split=st.sampled_from(["validation", "test"]),
    comparison=st.sampled_from([">", ">="]),
    is_against_deployed=st.booleans(),
    number=st.integers(-1000, 1000).map(lambda n: n / 1000),
)


@given(st.lists(TERMS, min_size=1, max_size=4))
def test_a_condition_is_written_as_it_is_read(terms):
    condition = PublishCondition(tuple(terms))
    assert parse(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", 0, "a metric is expected here"),
        ("val_acuracy > deployed", 0, "there is no metric 'val_acuracy'.*mean 'val_accuracy'"),
        ("accuracy", 8, "one of >, >=, <, <= is expected here"),
        ("accuracy == deployed", 9, "one of >, >=, <, <= is expected here"),
        ("accuracy > deploid", 11, "'deployed' or a number.*Did you mean 'deployed'"),
        ("accuracy > deployed 0.1", 20, "'\\+', '-' or 'and' is expected"),
        ("accuracy > deployed + x", 22, "a number is expected here"),
        ("accuracy > 0.9 or loss < 1", 15, "'and' is expected here"),
        ("accuracy > 0.9 and", 18, "a metric is expected here"),
        ("accuracy > 90%", 13, "'and' is expected here"),
        ("deployed < accuracy", 0, "a metric is expected here, as in 'val_accuracy > deployed'"),
        ("val_loss > deployed", 9, "only what is worse: loss is better when it is lower"),
        ("accuracy < deployed + 0.1", 9, "only what is worse: accuracy is better.*higher"),
    ],
)
def test_a_mistake_is_pointed_at(text, place, says):
    with pytest.raises(OptionsError, match=says) as raised:
        parse(text)
    first, _, pointer = str(raised.value).splitlines()
    assert first == "--publish_if cannot be used:"
    assert pointer.index("^") == 4 + place


@given(st.text(max_size=30))
def test_any_other_text_is_refused_or_read_but_never_fails(text):
    with contextlib.suppress(OptionsError):
        parse(text)


def test_nothing_is_better_than_what_is_not_deployed_and_nan_is_never_good_enough():
    term = Term("accuracy", "test", ">", True, 0.01)
    assert term.holds(0.6, 0.58) and not term.holds(0.6, 0.595)
    assert term.holds(0.1, None) and not term.holds(math.nan, None)
    assert not term.holds(math.nan, 0.5)


def test_the_metrics_are_those_that_exports_are_scored_by():
    from kerastrain.export.publish_decision import _any_answers
    from kerastrain.export.scoring import HIGHER_IS_BETTER, score

    found = set()
    for task, data in (
        (Classification(("cold", "warm")), weather_data()),
        (Regression("sum", (0.1, 0.5)), point_data()),
    ):
        targets = data.test.targets
        found |= set(score(task, _any_answers(task, targets), targets))
    for name in found:
        assert parse(f"{name} > 0").terms[0].metric == name
    assert set(HIGHER + LOWER) <= found
    assert HIGHER == HIGHER_IS_BETTER


def test_reading_a_condition_needs_no_tensorflow():
    script = """
        import sys
        from kerastrain.export.publish_condition import PublishCondition
        PublishCondition.parse("val_accuracy > deployed")
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", "if True:" + script], check=True)
