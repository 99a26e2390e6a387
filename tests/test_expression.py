"""Names with arguments: what is read, and how errors point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.errors import OptionsError
from kerastrain.expression import Both, Call, Either, make, parse, parse_call

VALUES = st.recursive(
    st.one_of(
        st.integers(-(10**9), 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.none(),
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
NAMES = st.from_regex(r"[a-z]{1,3}_[a-z]{1,3}", fullmatch=True)
CALLS = st.builds(
    Call,
    NAMES,
    st.lists(VALUES, max_size=3).map(tuple),
    st.dictionaries(NAMES, VALUES, max_size=3),
)


@given(CALLS)
def test_what_is_written_is_read_back(call):
    assert parse_call(str(call), flag="optimizer") == call


def test_calls_are_joined_by_words_or_signs():
    a, b, c = Call("a"), Call("b", (1,)), Call("c", (), {"x": "word"})
    assert parse("a or b(1) and c(x=word)", flag="stop") == Either((a, Both((b, c))))
    assert parse("a | b(1) & c(x='word')", flag="stop") == Either((a, Both((b, c))))


def test_where_one_name_is_expected_two_are_refused():
    with pytest.raises(OptionsError, match="one name is expected"):
        parse_call("adam or sgd", flag="optimizer")


@pytest.mark.parametrize(
    "text",
    ["a.b(1)", "a(**b)", "a(*b)", "a(lambda: 1)", "a(x for x in y)", "f'{a}'", "a(1+1)", "a(b.c)",
     "a[0]", "(" * 3000, "a\0b", "a(-'x')", "a(-True)", "a(b=1, b=2)"],
)  # fmt: skip
def test_anything_else_is_refused_and_nothing_is_run(text):
    with pytest.raises(OptionsError, match="--stop cannot be used"):
        parse(text, flag="stop")


def test_a_long_text_is_shown_around_the_place():
    with pytest.raises(OptionsError) as error:
        parse("a or " * 200 + "5", flag="stop")
    shown, pointer = str(error.value).splitlines()[1:3]
    assert len(shown) < 130 and shown[pointer.index("^")] == "5"


def test_lines_are_read_as_one():
    assert parse("a\n  or b", flag="stop") == Either((Call("a"), Call("b")))


def maker(rate=0.1, *, momentum=0.0):
    if momentum < 0:
        raise ValueError("momentum must be positive")
    return rate, momentum


def test_a_call_is_made_with_its_arguments():
    call = parse_call("sgd(1, momentum=0.9)", flag="optimizer")
    assert make(call, maker, text="", flag="optimizer") == (1, 0.9)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("sgd(momentun=0.9)", 4, "Did you mean 'momentum'?"),
        ("sgd(1, 2)", 0, "too many positional arguments"),
        ("sgd(momentum=-1)", 0, "sgd: momentum must be positive"),
        ("sgd(momentum='x')", 0, "sgd: '<' not supported"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_place(text, column, says):
    with pytest.raises(OptionsError) as error:
        make(parse_call(text, flag="optimizer"), maker, text=text, flag="optimizer")
    pointer = str(error.value).splitlines()[2]
    assert pointer.index("^") == 4 + column and says in pointer
