"""Criteria joined, written, read, watched and replayed."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_values import LOSS, evaluations, stop_index

from kerastrain.errors import ObjectiveError, OptionsError
from kerastrain.objective import Objective
from kerastrain.training.stopping import (
    CRITERIA,
    GL,
    PQ,
    UP,
    After,
    AllOf,
    AnyOf,
    Baseline,
    Budget,
    Divergence,
    Evidence,
    Never,
    Patience,
    Plateau,
    Progress,
    Significance,
    Smoothed,
    StoppingProgress,
    Target,
    Watch,
    outcome,
    parse_criterion,
)

VALUES = [1.0, 0.8, 0.9, 0.7, 0.75, 0.8, 0.9]

SINGLE = st.sampled_from(
    [
        Patience(2),
        Patience(epochs=3, min_delta=0.01, relative=True),
        Patience(steps=25, baseline=0.5, start_from=2, monitor="loss"),
        Patience(seconds=4.5),
        Target(0.75),
        Target(0.5, monitor="val_score:max"),
        Baseline(0.6, epochs=4),
        GL(12.5),
        GL(3, ideal=0.1),
        PQ(0.5, k=2),
        UP(2, k=1),
        Progress(k=3, least=20),
        Plateau(3, epsilon=0.05),
        Significance(z=1.5, patience=2),
        Evidence(),
        Divergence(),
        Divergence(threshold=0.95, deviations=2, beta=0.5),
        After(3),
        Budget(seconds=9),
        Never(),
    ]
)
CRITERION = st.recursive(
    SINGLE,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(AnyOf),
        st.tuples(inner, inner, inner).map(AllOf),
        st.tuples(
            inner.filter(lambda each: not any(isinstance(s, Significance) for s in each.leaves())),
            st.sampled_from([0.0, 0.5]),
        ).map(lambda each: Smoothed(*each)),
    ),
    max_leaves=5,
)
NUMBERS = st.one_of(st.floats(-2, 2), st.sampled_from([0.5, math.nan, math.inf, -math.inf]))


def told(values):
    others = dict.fromkeys(("loss", "val_score", "evidence"), values)
    return evaluations(values, **others, val_loss_difference_error=[0.1] * len(values))


def test_or_stops_when_one_part_does_and_says_which():
    found = outcome(Patience(2) | Target(0.8), evaluations(VALUES), LOSS)
    assert found.stopped_at.index == 1
    assert [reading.criterion for reading in found.verdicts[-1].because] == ["target(0.8)"]
    assert found.says == "val_loss 0.8 reached the target 0.8"


def test_and_stops_when_all_parts_do_at_once():
    rule = GL(2) & After(epochs=5)
    assert stop_index(GL(2), VALUES) == 2
    found = outcome(rule, evaluations(VALUES), LOSS)
    assert found.stopped_at.index == 4
    assert [reading.criterion for reading in found.verdicts[-1].because] == [
        "gl(2)",
        "after(epochs=5)",
    ]


def test_and_binds_more_closely_than_or():
    rule = parse_criterion("target(0.5) or gl(2) and after(epochs=5)")
    assert rule == Target(0.5) | (GL(2) & After(epochs=5))
    assert parse_criterion("(target(0.5) or gl(2)) and after(epochs=5)") != rule


def test_signs_do_as_well_as_words():
    text = "patience(5) | gl(2) & after(epochs=3)"
    assert str(parse_criterion(text)) == "patience(5) or (gl(2) and after(epochs=3))"


@given(CRITERION)
def test_what_is_written_is_read_back(criterion):
    assert parse_criterion(str(criterion)) == criterion


@given(criterion=CRITERION, values=st.lists(NUMBERS, min_size=1, max_size=15))
def test_one_verdict_comes_for_each_evaluation_whether_told_singly_or_together(criterion, values):
    together = list(criterion.verdicts(iter(told(values)), LOSS))
    watch = Watch(criterion, LOSS)
    assert [repr(watch.tell(each)) for each in told(values)] == [repr(v) for v in together]
    assert len(together) == len(values)


@given(criterion=CRITERION, values=st.lists(NUMBERS, min_size=1, max_size=15))
def test_values_that_are_not_finite_are_all_alike(criterion, values):
    # So a record in strict JSON, which has one word for them, decides as the run did.
    plain = [value if math.isfinite(value) else math.nan for value in values]
    stops = [v.stops for v in criterion.verdicts(iter(told(values)), LOSS)]
    assert stops == [v.stops for v in criterion.verdicts(iter(told(plain)), LOSS)]


@given(
    criterion=CRITERION,
    values=st.lists(NUMBERS, min_size=2, max_size=12),
    cut=st.integers(0, 11),
)
def test_progress_taken_up_in_the_middle_is_as_if_never_interrupted(criterion, values, cut):
    whole, resumed = (StoppingProgress(criterion, LOSS, min_delta=0.01) for _ in range(2))
    for evaluation in told(values):
        whole.tell(evaluation)
    before = StoppingProgress(criterion, LOSS, min_delta=0.01)
    for evaluation in told(values)[:cut]:
        before.tell(evaluation)
    resumed.take_up(before.to_json(), told(values)[:cut])
    for evaluation in told(values)[cut:]:
        resumed.tell(evaluation)
    assert (repr(resumed.verdict), resumed.stopped) == (repr(whole.verdict), whole.stopped)
    assert resumed.best == whole.best or repr(resumed.best) == repr(whole.best)


def test_going_on_begins_to_wait_anew_and_keeps_the_best():
    progress = StoppingProgress(Patience(2), LOSS)
    values = [0.5, 0.6, 0.7]
    for evaluation in evaluations(values):
        progress.tell(evaluation)
    assert progress.stopped
    progress.go_on()
    assert not progress.stopped and progress.best.index == 0
    later = evaluations([*values, 0.8, 0.9])[3:]
    progress.tell(later[0])
    assert not progress.stopped
    progress.tell(later[1])
    assert progress.stopped and progress.best.index == 0


def test_going_on_survives_a_restart():
    progress = StoppingProgress(Target(0.5), LOSS)
    series = evaluations([0.9, 0.4])
    for evaluation in series:
        progress.tell(evaluation)
    progress.go_on()
    again = StoppingProgress(Target(0.5), LOSS)
    again.take_up(progress.to_json(), series)
    assert not again.stopped and again.best == series[1]


def test_a_replay_says_what_was_lost_and_saved():
    found = outcome(Patience(1), evaluations([1.0, 0.8, 0.9, 0.5, 0.6]), LOSS)
    assert (found.stopped_at.index, found.best.index, found.best_of_all.index) == (2, 1, 3)
    assert found.lost == pytest.approx(0.3)
    assert found.seconds_saved == 4
    assert found.share_saved == pytest.approx(0.4)


def test_a_replay_that_never_stops_loses_and_saves_nothing():
    found = outcome(Never(), evaluations(VALUES), LOSS)
    assert (found.stopped_at, found.lost, found.share_saved, found.says) == (None, 0, 0, "")


def test_a_metric_that_was_not_recorded_is_an_error_with_a_suggestion():
    with pytest.raises(ObjectiveError, match="needs 'val_los'.*Did you mean 'val_loss'"):
        outcome(Target(1.0), evaluations(VALUES), Objective("val_los", "min"))


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_is_documented_with_its_errors_and_arguments(name):
    assert CRITERIA[name].__doc__


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("patience(5) or traget(0.9)", 15, "Did you mean 'target'"),
        ("gl(2) and patience(5, pateince=3)", 22, "patience has the arguments"),
        ("gl()", 0, "missing a required argument: 'alpha'"),
        ("up(2) or gl(-1)", 9, "alpha=-1"),
        ("up(2) or gl(alpha=-1)", 12, "alpha=-1"),
        ("smoothed(5)", 0, "expected a criterion"),
        ("target(0.9, 5)", 0, "monitor=5; expected a text"),
        ("gl(2, monitor=gl(2))", 6, "expected a text"),
        ("patience(5, relative=no)", 12, "expected True or False"),
        ("smoothed(nonsense(5))", 9, "no criterion 'nonsense'"),
        ("patience(5, monitor=val_fancy)", 0, "'val_fancy:min' or 'val_fancy:max'"),
        ("patience(5))", 11, "cannot be read"),
        ("", 0, "nothing was given"),
        ("after(3epochs)", 6, "units go by name"),
        ("5", 0, "a name is expected"),
        ("patience(5) or not gl(2)", 15, "a name is expected"),
    ],
)
def test_an_error_points_at_the_character(text, column, says):
    with pytest.raises(OptionsError) as error:
        parse_criterion(text)
    shown, pointer = str(error.value).splitlines()[1:3]
    assert shown[4:] == text
    assert pointer.index("^") == 4 + column
    assert says in pointer


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_with_an_error_of_our_own(text):
    with contextlib.suppress(OptionsError, ObjectiveError):
        assert parse_criterion(text) == parse_criterion(str(parse_criterion(text)))
