"""`kerastrain verify_resume` itself: real kills of real trainings, and what it says of them."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import killing
import pytest

VERIFY = ("verify_resume", f"--recipe={killing.RECIPES / 'mlp.py'}", "--jit=off")

UNREPRODUCIBLE = """
import os
import keras
import numpy as np
import kerastrain
from kerastrain.data.bundled import load_digits_data

def build(options, data):
    image = keras.Input((8, 8), dtype="uint8", name="image")
    dense = keras.layers.Dense(10, name="logits")
    model = keras.Model(image, dense(keras.layers.Flatten()(image)))
    random = np.random.default_rng(int.from_bytes(os.urandom(4), "big"))
    dense.set_weights([random.normal(size=(64, 10)), np.zeros(10)])
    model.compile(
        optimizer=kerastrain.build_optimizer(options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model

RECIPE = kerastrain.Recipe(load_data=load_digits_data, build_model=build)
"""


def test_verify_resume_proves_a_resume_to_be_exact(run_kerastrain, tmp_path):
    ended = run_kerastrain(*VERIFY, "--max_epochs=40", "--kills=1", "--kill_seed=2", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    assert [kill["number"] for kill in report["kills"]] == [1]
    assert report["differences"] == [] and report["values"] > 50
    assert len(re.findall("^Kill ", ended.stdout, flags=re.MULTILINE)) == 1
    assert ended.stderr == "" and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_verify_resume_finds_a_training_that_is_not_the_same_twice(run_kerastrain, tmp_path):
    (tmp_path / "recipe.py").write_text(UNREPRODUCIBLE)
    flags = ("--recipe=recipe.py", "--max_epochs=2", "--kills=1", "--workdir=runs", "--jit=off")
    ended = run_kerastrain("verify_resume", *flags)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    # It differs already when the run is over before its kill.
    assert re.search("[01] kills?; run 1 differs from the undisturbed run:", ended.stdout)
    assert re.search(r"latest: model/0 \(logits/kernel\): [\d,]+ of 2,560 bytes", ended.stdout)
    assert {path.name for path in (tmp_path / "runs").iterdir()} > {"undisturbed", "killed_1"}


def test_verify_resume_tells_why_a_training_does_not_even_end_undisturbed(run_kerastrain, tmp_path):
    (tmp_path / "recipe.py").write_text(UNREPRODUCIBLE.replace("os.urandom(4)", "1 / 0"))
    ended = run_kerastrain("verify_resume", "--recipe=recipe.py")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "The undisturbed run ended with status 1. Its last words:" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_verify_resume_leaves_no_process_behind(tmp_path, number, status):
    command = [sys.executable, "-m", "kerastrain", *VERIFY, f"--workdir={tmp_path}/runs"]
    lock = tmp_path / "runs" / "undisturbed" / "lock"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        killing.wait_until(lambda: lock.exists() and bool(lock.read_text()), process)
        trainer = Path("/proc") / lock.read_text().split()[1]
        assert trainer.exists()
        process.send_signal(number)
        assert process.wait(killing.DEADLINE_SECONDS) == status
    assert not trainer.exists()


STOPPING = (
    ("--stop=gl(60) and after(epochs=20) or significance(z=1, patience=25)", "--schedule=plateau"),
    ("--stop=up(6, k=3)", "--schedule=cosine(warmup_epochs=2)", "--evaluate_every=0.01s"),
    ("--stop=smoothed(evidence, beta=0.5)", "--optimizer=sgd", "--max_epochs=20"),
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flags", STOPPING, ids=["significance", "seconds", "evidence"])
def test_kills_change_nothing_in_when_a_run_stops_and_how_fast_it_learns(run_kerastrain, flags):
    flags = ("--recipe=digits", "--learning_rate=auto", "--checkpoint_every=0.1s", *flags)
    ended = run_kerastrain("verify_resume", *flags, "--kills=6")
    print(f"\n{' '.join(flags)}\n{ended.stdout}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no byte differs from the undisturbed run." in ended.stdout


# Long enough to be killed many times, short enough for a test.
SHIPPED = {
    "digits": (),
    "mnist_mlp": ("--data_dir={data}/mnist", "--max_epochs=8"),
    "mnist_cnn": ("--data_dir={data}/mnist", "--max_steps=600", "--evaluate_every=120steps"),
    "tabular": (
        "--data={data}/tabular/california-housing.csv.gz",
        "--target=median_house_value",
        "--max_epochs=40",
    ),
    "xor": ("--max_epochs=1500", "--patience=1500"),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", SHIPPED)
def test_forty_kills_change_nothing_in_a_shipped_recipe(run_kerastrain, real_data, recipe):
    flags = [flag.format(data=real_data) for flag in SHIPPED[recipe]]
    ended = run_kerastrain("verify_resume", f"--recipe={recipe}", *flags, "--kills=40")
    print(f"\n{recipe} {' '.join(SHIPPED[recipe])}\n{ended.stdout}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "40 kills; no byte differs from the undisturbed run." in ended.stdout
