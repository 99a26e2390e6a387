"""Trains in a folder on a small disk that a callback fills up and empties again.

    python on_a_small_disk.py FOLDER_ON_THE_SMALL_DISK FOLDER_WITH_ROOM

Prints a JSON object of what happened; run by `test_full_disk.py`.
"""

import json
import logging
import sys
from pathlib import Path

import keras
import numpy as np

import kerastrain
from kerastrain.errors import CheckpointError

SMALL, ROOMY = map(Path, sys.argv[1:])
RNG = np.random.default_rng(0)
X, Y = RNG.random((256, 32), np.float32), RNG.integers(0, 4, 256)


def model():
    net = keras.Sequential([keras.Input((32,)), keras.layers.Dense(256), keras.layers.Dense(4)])
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


class Fill(keras.callbacks.Callback):
    """Leaves no byte free from the beginning of one epoch to that of another, however much
    is removed meanwhile."""

    def __init__(self, folder, full_from, free_from=1000):
        super().__init__()
        self.ballast = folder / "ballast"
        self.epochs = range(full_from, free_from)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch in self.epochs:
            fill(self.ballast)
        if epoch == self.epochs.stop:
            self.ballast.unlink()


def fill(path):
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


def train(workdir, *callbacks):
    return kerastrain.train(
        model, (X, Y), validation=(X, Y), workdir=workdir, batch_size=32, max_epochs=12,
        evaluate_every="4steps", checkpoint_every="4steps", jit="off", verbose=0,
        callbacks=callbacks,
    )  # fmt: skip


def checkpoints(workdir):
    return sorted(int(path.stem[5:]) for path in (workdir / "checkpoints/latest").glob("*.json"))


warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("kerastrain").addHandler(handler)

whole = train(ROOMY / "whole", Fill(ROOMY, 1000))
freed = train(SMALL / "freed", Fill(SMALL, 5, 12))
seen = {"freed": freed.history == whole.history, "warnings": list(warnings)}
try:
    train(SMALL / "full", Fill(SMALL, 5))
except CheckpointError as error:
    seen["error"] = str(error)
seen["left"] = checkpoints(SMALL / "full")
(SMALL / "ballast").unlink()
seen["went on"] = train(SMALL / "full", Fill(ROOMY, 1000)).history == whole.history
log = (SMALL / "freed" / "metrics.jsonl").read_text()
lines = [json.loads(line)["step"] for line in log.splitlines()]
seen["every line once"] = lines == sorted(set(lines)) and lines[-1] == whole.step
print(json.dumps(seen))
