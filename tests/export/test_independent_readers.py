"""What others make of a published version, on 256 real rows: TensorFlow, C, OpenVINO, ovmsclient.

Edge formats and their runtimes are in `formats/`.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from checked_here import check_here
from tensorflow.core.protobuf import saved_model_pb2

from kerastrain.data.images import load_image_data
from kerastrain.data.source import Classification, Data, Examples
from kerastrain.export.publishing import publish
from kerastrain.export.serving import ServedModel
from kerastrain.options import TrainOptions
from kerastrain.serving.models import ModelSpec
from kerastrain.serving.server import Server, Settings

HERE = Path(__file__).parent
WHEEL = Path(tf.__file__).parent
TOLERANCE = 1e-5


def published(rows, labels, base):
    """A perceptron on flat float32 rows, published; its folder, 256 rows, the live answers."""
    examples = Examples(rows, labels)
    data = Data(train=examples, test=examples, task=Classification(tuple(range(10))))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((rows.shape[1],), name="pixels"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(rows[:2000], labels[:2000], verbose=0)
    folder = publish(model, data, base=base, facts={}).path
    return folder, rows[:256], ServedModel.of(model, data).answers({"pixels": rows[:256]})


@pytest.fixture(scope="module")
def model(tmp_path_factory, real_data):
    test = load_image_data("mnist", TrainOptions(data_dir=str(real_data / "mnist"))).test
    rows = (test.inputs[:3000].reshape(3000, -1) / 255).astype(np.float32)
    with pytest.MonkeyPatch.context() as patched:
        check_here(patched)
        return published(rows, test.targets[:3000], tmp_path_factory.mktemp("mnist") / "mlp")


def tensor_names(folder):
    """The graph's names of the input and of the probabilities, as any server reads them."""
    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    signature = graph.signature_def["serving_default"]
    return signature.inputs["pixels"].name, signature.outputs["probabilities"].name


def test_tensorflow_alone_answers_the_same(model):
    folder, rows, answers = model
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    received = signature(pixels=tf.constant(rows))["probabilities"].numpy()
    np.testing.assert_allclose(received, answers["probabilities"], atol=TOLERANCE)


def test_a_c_program_answers_the_same(model, tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc)")
    folder, rows, answers = model
    program = tmp_path / "ask"
    source = str(HERE / "readers" / "ask.c")
    subprocess.run(
        [compiler, source, "-o", str(program), f"-I{WHEEL / 'include'}", "-ldl"], check=True
    )
    library, shape = str(WHEEL / "libtensorflow_cc.so.2"), map(str, rows.shape)
    result = subprocess.run(
        [str(program), library, str(folder), *tensor_names(folder), *shape],
        input=rows.tobytes(), capture_output=True, check=True,
    )  # fmt: skip
    received = np.frombuffer(result.stdout, np.float32).reshape(len(rows), -1)
    np.testing.assert_allclose(received, answers["probabilities"], atol=TOLERANCE)


def test_openvino_reads_the_saved_model_and_answers_the_same(model):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    folder, rows, answers = model
    core = openvino.Core()
    # Processors with bfloat16 would compute in it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(str(folder)), "CPU", settings)
    received = compiled({"pixels": rows})["probabilities"]
    np.testing.assert_allclose(received, answers["probabilities"], atol=TOLERANCE)


def test_ovmsclient_gets_the_same_answers_over_grpc(model):
    ovmsclient = pytest.importorskip("ovmsclient", reason="ovmsclient is not installed")
    folder, rows, answers = model

    def ask(port):
        client = ovmsclient.make_grpc_client(f"127.0.0.1:{port}")
        return client.predict({"pixels": rows}, "mlp")["probabilities"]

    async def received():
        models = [ModelSpec("mlp", folder.parent)]
        async with Server(Settings(models, rest_port=None, grpc_port=0)) as server:
            return await asyncio.to_thread(ask, server.grpc_port)

    np.testing.assert_allclose(asyncio.run(received()), answers["probabilities"], atol=TOLERANCE)


@pytest.mark.slow
def test_saved_model_cli_answers_the_same(model, tmp_path):
    folder, rows, answers = model
    np.save(tmp_path / "rows.npy", rows)
    command = [str(Path(sys.executable).parent / "saved_model_cli"), "run"]
    command += ["--dir", str(folder), "--tag_set", "serve", "--signature_def", "serving_default"]
    command += [f"--inputs=pixels={tmp_path / 'rows.npy'}", f"--outdir={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    received = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(received, answers["probabilities"], atol=TOLERANCE)
