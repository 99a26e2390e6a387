from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.errors import ExportError
from kerastrain.export.naming import rewrite_signatures, signature_inputs, traced_names

NAMES = [
    "age",
    "hours-per-week",
    "Median income",
    "class",
    "größe",
    "a b",
    "A",
    "a",
    "column_1",
    "x:0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SavedModel whose output is each input times its place, added up."""
    folder = tmp_path_factory.mktemp("named")
    traced = traced_names(NAMES)
    specs = {new: tf.TensorSpec([None], tf.float32, name=new) for new in traced.values()}

    @tf.function(input_signature=[specs])
    def weighted_sum(x):
        return {"sum": tf.add_n([x[traced[n]] * (i + 1.0) for i, n in enumerate(NAMES)])}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": weighted_sum})
    rewrite_signatures(folder, traced, {})
    return folder


def test_every_input_has_its_columns_own_name(folder):
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert set(signature_inputs(folder)) == set(NAMES)
    values = np.arange(3.0, dtype=np.float32)
    rows = {name: tf.constant(values * 10**-i) for i, name in enumerate(NAMES)}
    expected = sum(values * 10**-i * (i + 1) for i in range(len(NAMES)))
    np.testing.assert_allclose(signature(**rows)["sum"], expected, rtol=1e-6)


def test_a_server_that_reads_the_signature_alone_finds_the_same_inputs(folder):
    values = {name: np.float32(10.0**-i) for i, name in enumerate(NAMES)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = graph.signature_def["serving_default"]
        fed = {signature.inputs[name].name: [value] for name, value in values.items()}
        received = session.run(signature.outputs["sum"].name, fed)
    expected = sum(value * (i + 1) for i, value in enumerate(values.values()))
    np.testing.assert_allclose(received, [expected], rtol=1e-6)


def test_the_fingerprint_is_that_of_the_renamed_graph(folder):
    recorded = tf.saved_model.experimental.read_fingerprint(str(folder))
    before = (folder / "fingerprint.pb").read_bytes()
    # Writes the same graph, and its fingerprint.
    rewrite_signatures(folder, {"other": "unused_1"}, {})
    again = tf.saved_model.experimental.read_fingerprint(str(folder))
    (folder / "fingerprint.pb").write_bytes(before)
    assert again.signature_def_hash == recorded.signature_def_hash


@given(st.lists(st.text("aAbB1_-é ", min_size=1, max_size=4), min_size=1))
def test_traced_names_differ_also_when_case_is_ignored(names):
    try:
        traced = traced_names(names)
    except ExportError:
        assert len({re.sub(r"[- ]", "_", name) for name in names}) < len(names)
        return
    assert list(traced) == names
    assert len({name.lower() for name in traced.values()}) == len(names)
    assert all(name.isascii() and name.isidentifier() for name in traced.values())


@pytest.mark.parametrize("names", [["self"], ["a", "a"], ["a-b", "a b"], ["a", ""]])
def test_names_that_cannot_be_served_are_refused(names):
    with pytest.raises(ExportError, match="Rename the columns"):
        traced_names(names)
