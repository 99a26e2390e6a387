"""What a run takes beside `model.fit`, for a model whose activations are large: memory and time.

    python benchmarks/export_check.py      # eight images of 128x128, two convolutions

Each way runs in a process of its own, with its imports. `train` also starts the process that
checks its exports, whose peak is told by itself: a run is only as small as the larger of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time

IMAGES, SIZE, BATCH_SIZE = 8, 128, 8
FILTERS = (32, 64)


def measure(way: str, *, epochs: int) -> dict[str, float]:
    """{"seconds", "gigabytes", "helper_gigabytes"} of "fit" or "train" in a new process."""
    command = [sys.executable, __file__, way, str(epochs)]
    began = time.perf_counter()
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peaks: dict[str, float] = json.loads(shown.splitlines()[-1])
    return {"seconds": time.perf_counter() - began, **peaks}


def _run(way: str, epochs: int) -> None:
    """In the process: trains, and prints the peaks of resident memory."""
    if way == "train":
        import kerastrain

        with tempfile.TemporaryDirectory() as folder:
            # As `kerastrain train` does: the checking process imports while this one does.
            kerastrain.train(
                _model,
                _images(),
                validation=_images(),
                workdir=f"{folder}/run",
                max_epochs=epochs,
                batch_size=BATCH_SIZE,
                verbose=0,
            )
    else:
        x, y = _images()
        _model().fit(x, y, validation_data=(x, y), epochs=epochs, batch_size=BATCH_SIZE, verbose=0)
    peaks = {"gigabytes": resource.RUSAGE_SELF, "helper_gigabytes": resource.RUSAGE_CHILDREN}
    # Linux counts in kilobytes.
    print(json.dumps({n: resource.getrusage(who).ru_maxrss / 2**20 for n, who in peaks.items()}))


def _images():
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.random((IMAGES, SIZE, SIZE, 3), np.float32), np.arange(IMAGES) % 2


def _model():
    import keras

    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for filters in FILTERS:
        model.add(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def main() -> None:
    epochs = 5
    for way in ("fit", "train"):
        found = measure(way, epochs=epochs)
        helper = f", checking {found['helper_gigabytes']:.2f} GB" if way == "train" else ""
        print(
            f"{way:<6} {found['seconds']:6.1f} s  {found['gigabytes']:.2f} GB{helper}", flush=True
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _run(sys.argv[1], int(sys.argv[2]))
    else:
        main()
