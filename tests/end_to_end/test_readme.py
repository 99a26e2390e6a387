"""What the README shows works: its commands, its recipe, its Python."""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

import google.protobuf.text_format
import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

import kerastrain
from kerastrain.schedules import SCHEDULES, parse_schedule
from kerastrain.training.stopping import CRITERIA, parse_criterion


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text()


def blocks(readme, language):
    fenced = re.findall(r"^```([\w.]*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def commands(readme):
    lines = [line.partition("#")[0].strip() for b in blocks(readme, "") for line in b.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("kerastrain ")]


@pytest.mark.timeout(1200)  # fourteen commands, three trainings among them
def test_the_commands_of_the_readme_run_on_real_data(readme, run_kerastrain, tmp_path, real_data):
    (tmp_path / "DIR_WITH_MNIST").symlink_to(real_data / "mnist")
    table = real_data / "tabular" / "california-housing.csv.gz"
    short = {"train": ["--max_steps=40", "--jit=off"]}
    shown = commands(readme)
    names = ["train", "train", "evaluate", "evaluate", "checkpoints", "find_lr", "train", "replay"]
    names += ["schema", "explain", "predict", "export", "versions", "serve"]
    assert [command[0] for command in shown] == names
    printed = []
    for command in shown[:-1]:
        flags = [flag.replace("=housing.csv", f"={table}") for flag in command]
        flags = [flag.replace("=new.csv", f"={table}") for flag in flags]
        ended = run_kerastrain(*flags, *short.get(command[0], []))
        assert ended.returncode == 0, ended.stderr
        printed.append(ended.stdout)
    assert "metrics" in json.loads(printed[3])
    assert "intact" in printed[4] and "damaged" not in printed[4]
    assert "suggested learning rate: " in printed[5]
    assert "Learning rate 0.0" in printed[6] and "stopped: Ended at step 40" in printed[6]
    assert "gl(2)" in printed[7] and "Mean over 2 runs" in printed[7]
    assert "target: a number" in printed[8] and (tmp_path / "schema.json").exists()
    assert "median_income" in printed[9] and (tmp_path / "runs/housing/report/index.html").exists()
    assert (
        "20,640" in printed[10]
        and pq.read_table(tmp_path / "predictions.parquet").num_rows == 20640
    )
    assert "model.tflite" in printed[11] and "model.onnx" in printed[11]
    assert "deployed" in printed[12]
    is_served(shown[-1], tmp_path)
    tags = tensorboard_tags(tmp_path / "runs")
    assert {"mnist/tensorboard/train", "mnist/tensorboard/validation"} <= set(tags)
    assert {"loss", "accuracy"} <= set(tags["mnist/tensorboard/validation"])
    assert "learning_rate" in tags["housing/tensorboard/train"]


def is_served(command, folder):
    """The server of the README answers on ports of its own, and ends when it is told to."""
    ports = [f"--{kind}_port={free_port()}" for kind in ("rest", "grpc")]
    server = subprocess.Popen(
        [sys.executable, "-m", "kerastrain", *command, *ports],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{ports[0].partition('=')[2]}/v1/models"
    for name in ("digits", "housing"):
        state = json.loads(answer_of(f"{url}/{name}"))["model_version_status"][0]["state"]
        assert state == "AVAILABLE"
    image = np.zeros((1, 28, 28), int).tolist()
    request = urllib.request.Request(
        f"{url}/digits:predict", json.dumps({"instances": image}).encode()
    )
    with urllib.request.urlopen(request) as answer:
        assert 0 <= json.load(answer)["predictions"][0]["label"] <= 9
    server.terminate()
    assert server.wait(timeout=60) == 0


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answer_of(url):
    """What a server that is just being started says."""
    for _ in range(240):
        time.sleep(0.5)
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
            return answer.read()
    pytest.fail(f"{url} did not answer")


def test_tensorflow_serving_reads_the_readmes_models_config(readme):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    (text,) = blocks(readme, "models.config")
    read = google.protobuf.text_format.Parse(text, config.ModelServerConfig())
    (model,) = read.model_config_list.config
    assert (model.name, model.base_path) == ("digits", "/models/digits")


def tensorboard_tags(folder):
    """The scalars that a real TensorBoard shows for a folder of runs."""
    port = free_port()
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/tags"
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(url) as answer:
                    tags = json.load(answer)
            except OSError:
                continue  # Not listening yet.
            if len(tags) >= 4:
                return tags
        pytest.fail(f"TensorBoard shows only {tags}")
    finally:
        board.terminate()
        board.wait()


def test_the_recipe_of_the_readme_trains(readme, run_kerastrain, tmp_path):
    (recipe,) = [b for b in blocks(readme, "python") if "RECIPE" in b]
    (tmp_path / "my_recipe.py").write_text(recipe)
    ended = run_kerastrain(
        "train", "--recipe=my_recipe.py", "--set=hidden=32", "--max_epochs=2", "--workdir=runs/my"
    )
    assert ended.returncode == 0, ended.stderr
    assert "runs/my/export/my_recipe/1" in ended.stdout


def test_the_python_of_the_readme_runs(readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (call,) = [b for b in blocks(readme, "python") if "kerastrain.train(" in b]
    (fit,) = [b for b in blocks(readme, "python") if "model.fit(" in b]
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 4), np.float32), rng.random((64, 1), np.float32)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    names = {"model": model, "x": x, "y": y, "xv": x, "yv": y, "kerastrain": kerastrain}
    exec(call.replace("max_epochs=50", "max_epochs=2, verbose=0"), names)
    assert names["result"].export.is_dir()
    exec(fit.replace("...", "x, y, validation_data=(x, y), epochs=2, verbose=0"), names)
    assert list((tmp_path / "runs" / "best").glob("ckpt-*.index"))


def test_every_criterion_and_schedule_that_the_readme_names_can_be_given(readme):
    stopping, _, learning = readme.partition("## How fast to learn")
    learning = learning.partition("\n## ")[0]

    def named(text, known):
        found = re.findall(r"`([a-z_]+)(\([^`]*\))?`", text)
        return [name + arguments for name, arguments in found if name in known]

    criteria, schedules = named(stopping, CRITERIA), named(learning, SCHEDULES)
    assert {str(parse_criterion(text)).partition("(")[0] for text in criteria} == set(CRITERIA)
    assert {parse_schedule(text).name for text in schedules} == set(SCHEDULES)
