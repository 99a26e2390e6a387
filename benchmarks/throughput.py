"""Training speed side by side: this package's training, and its peers in between.

    compared = compare(mlp(), x, y, peers={"fit": Fit(...)}, epochs={...}, rounds=8)
    compared.speeds["kerastrain"]      # examples per second, one number a round

A machine's speed drifts by a factor of two within minutes, so nothing is timed
by itself: `kerastrain.train` runs once, and at the end of each of its rounds a
callback gives each peer its turn, in the same process.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from peers import BATCH_SIZE

import kerastrain

TRAINING, WALL_CLOCK = "kerastrain", "kerastrain, wall clock"


class Peer(Protocol):
    """Something else that trains the same model; `examples` are seen in an epoch."""

    examples: int

    def seconds(self, *, epochs: int) -> float: ...


@dataclass(frozen=True)
class Compared:
    """Examples per second by name, a number a round; and how this package ran the steps.

    "kerastrain" is the speed of the training steps as the run itself reports it; "kerastrain,
    wall clock" has everything in it that a round of the loop does (logs, keeping the best
    weights, saving).
    """

    speeds: dict[str, list[float]]
    choice: str


class PeersInBetween(keras.callbacks.Callback):
    """Runs the peers at the end of each round, and notes how long the round itself took."""

    def __init__(self, peers: Mapping[str, Peer], *, epochs: Mapping[str, int]):
        super().__init__()
        self.peers, self.epochs = peers, epochs
        self.speeds: dict[str, list[float]] = {name: [] for name in peers}
        self.round_seconds: list[float] = []
        self._resumed_at = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.round_seconds.append(time.perf_counter() - self._resumed_at)
        for name, peer in self.peers.items():
            count = self.epochs[name]
            self.speeds[name].append(count * peer.examples / peer.seconds(epochs=count))
        self._resumed_at = time.perf_counter()


def compare(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    peers: Mapping[str, Peer],
    epochs: Mapping[str, int],
    rounds: int,
    batch_size: int = BATCH_SIZE,
) -> Compared:
    """Trains; the first round warms up and is left out.

    Args:
        epochs: of a turn, for each peer and for "kerastrain".
    """
    between = PeersInBetween(peers, epochs=epochs)
    per_round = epochs[TRAINING]
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        kerastrain.train(
            model,
            (x, y),
            workdir=workdir,
            max_epochs=per_round * (rounds + 1),
            batch_size=batch_size,
            evaluate_every=f"{per_round}epochs",
            callbacks=[between],
            verbose=0,
        )
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        choice = json.loads((workdir / "executor.json").read_text())["reason"]
    records = [record for record in map(json.loads, lines) if record["kind"] == "evaluation"]
    speeds = {
        TRAINING: [record["examples_per_second"] for record in records],
        WALL_CLOCK: [per_round * len(x) / seconds for seconds in between.round_seconds],
        **between.speeds,
    }
    return Compared({name: values[1:] for name, values in speeds.items()}, choice)
