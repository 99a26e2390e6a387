"""What a run takes beside `model.fit` where activations are large: seconds and memory.

    python benchmarks/export_check.py      # eight images of 128x128, two convolutions

Each way runs in a process of its own, its imports included. A run's export is checked by a
second process, whose peak is told by itself. Seconds of the processors are those of both: on a
busy machine they say more than the clock does.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

IMAGES, SIZE, FILTERS, EPOCHS = 8, 128, (32, 64), 5


def measure(way: str) -> str:
    """Runs "fit" or "train" in a new process; returns a line for people."""
    began = time.perf_counter()
    command = [sys.executable, __file__, way]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, found = time.perf_counter() - began, json.loads(shown.splitlines()[-1])
    of_processors, peak, helpers_peak = found
    line = f"{way:<6} {seconds:5.1f} s, of the processors {of_processors:5.1f} s, {peak:.2f} GB"
    return line if way == "fit" else f"{line}, in the checking process {helpers_peak:.2f} GB"


def _train() -> None:
    import kerastrain

    with tempfile.TemporaryDirectory() as folder:
        kerastrain.train(
            _model,
            _images(),
            validation=_images(),
            workdir=f"{folder}/run",
            max_epochs=EPOCHS,
            batch_size=IMAGES,
            verbose=0,
        )


def _fit() -> None:
    x, y = _images()
    _model().fit(x, y, validation_data=(x, y), epochs=EPOCHS, batch_size=IMAGES, verbose=0)


def _images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((IMAGES, SIZE, SIZE, 3), np.float32), np.arange(IMAGES) % 2


def _model() -> keras.Model:
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for filters in FILTERS:
        model.add(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def main() -> None:
    if len(sys.argv) == 1:
        for way in ("fit", "train"):
            print(measure(way), flush=True)
        return
    {"fit": _fit, "train": _train}[sys.argv[1]]()
    own, helper = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    of_processors = sum(used.ru_utime + used.ru_stime for used in (own, helper))
    # Linux counts in kilobytes.
    print(json.dumps([of_processors, own.ru_maxrss / 2**20, helper.ru_maxrss / 2**20]))


if __name__ == "__main__":
    main()
