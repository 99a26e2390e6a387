"""State that TensorFlow keeps to itself is found in what was traced."""

import keras
import pytest
import tensorflow as tf

from kerastrain.training.traced import calls_python, captured_variables, unkept_state

X = tf.ones((2, 2))
TABLE = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, default_value=0.0)
ITERATOR = iter(tf.data.Dataset.from_tensors(X).repeat())
SEEDS = keras.random.SeedGenerator(0)
GENERATOR = tf.random.Generator.from_seed(0)
VARIABLE = tf.Variable(0.0)


def in_a_loop(draw):
    @tf.function
    def step(count):
        i = tf.constant(0)
        while i < count:
            if i > 0:
                draw()
            i += 1

    return step.get_concrete_function(tf.constant(3))


@pytest.mark.parametrize(
    ("draw", "op"),
    [
        (lambda: tf.random.normal((2,)), "RandomStandardNormal"),
        (lambda: tf.random.uniform((2,), 0, 3, tf.int32, seed=5), "RandomUniformInt"),
        (lambda: tf.random.shuffle(X), "RandomShuffle"),
        (lambda: tf.random.categorical(X, 2), "Multinomial"),
        (lambda: tf.nn.fractional_max_pool(X[None, ..., None], 1.1), "FractionalMaxPool"),
        (lambda: tf.nn.dropout(X, 0.5), "RandomUniform"),
        (lambda: next(ITERATOR), "IteratorGetNext"),
        (lambda: TABLE.insert([1], [1.0]), "LookupTableInsert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_op_with_state_of_its_own_is_named_with_its_line(draw, op):
    (line,) = unkept_state(in_a_loop(draw))
    assert line.startswith(op)
    assert "(test_traced.py:" in line
    assert "use " in line


@pytest.mark.parametrize(
    "draw",
    [
        lambda: keras.random.normal((2,), seed=SEEDS),
        lambda: tf.random.stateless_normal((2,), (1, 2)),
        lambda: GENERATOR.normal((2,)),
        lambda: VARIABLE.assign_add(1.0),
        lambda: TABLE.lookup(tf.constant([1], tf.int64)),
    ],
)
def test_what_keeps_its_state_in_a_variable_or_has_none_is_no_fault(draw):
    assert unkept_state(in_a_loop(draw)) == []


def test_variables_are_found_in_the_order_in_which_they_are_met():
    first, second = tf.Variable(0.0), tf.Variable(0.0)
    traced = in_a_loop(lambda: (second.assign(first), first.assign_add(1.0)))
    assert [id(v) for v in captured_variables(traced)] == [id(first), id(second)]


def test_calls_of_python_are_told():
    traced = in_a_loop(lambda: tf.py_function(lambda: 1.0, [], tf.float32))
    assert [place.partition(" ")[0] for place in calls_python(traced)] == ["EagerPyFunc"]
