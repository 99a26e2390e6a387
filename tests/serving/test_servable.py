"""Loading versions, and calling them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kerastrain.export.manifest import write_manifest
from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import load_servable


@pytest.fixture(scope="module")
def servable(publish, tmp_path_factory):
    return load_servable("tiny", publish(tmp_path_factory.mktemp("base"), 3, scale=2.0))


def test_signatures_are_those_that_clients_see(servable):
    assert (servable.model, servable.version) == ("tiny", 3)
    assert sorted(servable.signatures) == [
        "classify", "means", "read", "regress", "serving_default", "single"
    ]  # fmt: skip
    default = servable.signatures["serving_default"]
    assert default.inputs["x"].dtype.name == "float32"
    assert default.inputs["x"].shape == (None, 2)
    assert set(default.outputs) == {"total", "twice"}
    assert default.method_name == "tensorflow/serving/predict"
    assert servable.signatures["classify"].method_name == "tensorflow/serving/classify"
    assert default.is_batchable and not servable.signatures["single"].is_batchable
    assert servable.manifest is None
    assert not servable.meta_graph.HasField("graph_def")  # megabytes that nobody asks for


@pytest.mark.parametrize("in_this_thread", [False, True])
def test_numbers_and_texts_go_in_and_out(servable, in_this_thread):
    def call(*asked):
        return servable.call(*asked, in_this_thread=in_this_thread)

    answers = call("serving_default", {"x": np.float32([[1, 2], [3, 4]])})
    np.testing.assert_array_equal(answers["total"], np.float32([6, 14]))
    answers = call("read", {"text": np.array([b"1e3", b"2"], object)})
    np.testing.assert_array_equal(answers["number"], np.float32([1000, 2]))
    assert answers["echo"].tolist() == [b"1E3", b"2"]
    answers = call("single", {"x": np.float32(1)})
    assert answers["y"].shape == () and answers["y"] == 2


@pytest.mark.parametrize("in_this_thread", [False, True])
def test_inputs_are_told_apart_by_their_names_alone(tmp_path, in_this_thread):
    # As functions' parameters these names are others, and in another order.
    names = ["b_a", "b-c", "B.a", "a", "b.d", "z"]

    @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.float32) for name in names}])
    def squares(inputs):
        return {f"{name} squared": inputs[name] ** 2 for name in names}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=n) for n in names])
    def apart(*values):
        return squares(dict(zip(names, values, strict=True)))

    module = tf.Module()
    module.functions = [squares, apart]
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": apart})
    servable = load_servable("m", tmp_path / "1")
    inputs = {
        name: np.float32([place])
        for place, name in enumerate(servable.signatures["serving_default"].inputs)
    }
    answers = servable.call("serving_default", inputs, in_this_thread=in_this_thread)
    assert answers == {f"{name} squared": value**2 for name, value in inputs.items()}


def test_what_the_function_refuses_is_the_clients_mistake_in_one_line(servable):
    wrong = {"text": np.array([b"abc"], object)}
    for in_this_thread in (False, True):
        with pytest.raises(ServingError) as raised:
            servable.call("read", wrong, in_this_thread=in_this_thread)
        assert raised.value.code == "INVALID_ARGUMENT"
        # Without TensorFlow's nodes and places.
        assert raised.value.message == "StringToNumberOp could not correctly convert string: abc"


def test_a_folder_without_saved_model_is_named(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.keras").write_text("")
    with pytest.raises(ServingError, match=r"holds no saved_model.pb, but model.keras"):
        load_servable("m", tmp_path / "1")


@pytest.mark.parametrize("damage", ["graph", "graph's end", "weights"])
def test_damaged_files_are_told(publish, tmp_path, damage):
    folder = publish(tmp_path, 1)
    graph = folder / "saved_model.pb"
    weights = next((folder / "variables").glob("*.data-*"))
    if damage == "graph":
        graph.write_bytes(b"\xff" * 100)
    elif damage == "graph's end":
        graph.write_bytes(graph.read_bytes()[:-100])
    else:
        weights.unlink()
    with pytest.raises(ServingError, match="cannot be") as raised:
        load_servable("m", folder)
    assert raised.value.code == "FAILED_PRECONDITION"


def test_a_version_with_a_manifest_has_to_be_what_was_published(publish, tmp_path):
    folder = publish(tmp_path, 1)
    write_manifest(folder, {"recipe": "digits"})
    assert load_servable("m", folder).manifest["recipe"] == "digits"
    (folder / "fingerprint.pb").write_bytes(b"changed")
    with pytest.raises(ServingError, match="is not the file that was published"):
        load_servable("m", folder)


def test_a_model_in_a_strange_folder_finds_its_assets_as_long_as_it_is_asked(strange):
    vocabulary = strange.parent / "vocabulary.txt"
    strange.mkdir(parents=True)
    vocabulary.write_text("a\nb\n")
    module = tf.Module()
    module.asset = tf.saved_model.Asset(str(vocabulary))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def read(x):
        return {"y": tf.repeat(tf.io.read_file(module.asset.asset_path), tf.size(x))}

    tf.saved_model.save(module, str(strange / "1"), signatures=read)
    loaded = load_servable("m", strange / "1")
    answers = loaded.call("serving_default", {"x": np.array([b"1"], object)})
    assert answers["y"].tolist() == [b"a\nb\n"]


def test_links_out_of_the_base_are_refused_and_others_followed(publish, tmp_path):
    outside, base = tmp_path / "outside", tmp_path / "base"
    outside.mkdir()
    base.mkdir()
    elsewhere = publish(outside, 1)
    (base / "1").symlink_to(elsewhere)
    with pytest.raises(ServingError, match="is a link out of") as raised:
        load_servable("m", base / "1")
    assert raised.value.code == "PERMISSION_DENIED"
    inside = publish(base, 2)
    (base / "3").symlink_to(inside)
    assert load_servable("m", base / "3").version == 3
    (inside / "variables" / "more").symlink_to("/etc/passwd")
    with pytest.raises(ServingError, match="is a link out of"):
        load_servable("m", inside)
