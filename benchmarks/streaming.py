"""Training on a set larger than memory may be: speed beside that from memory, and the memory.

    python benchmarks/streaming.py                       # 20,000,000 rows, 1.7 GB of disk
    python benchmarks/streaming.py --rows=2000000 --folder=/tmp/streaming
    python benchmarks/streaming.py --parquet             # the same rows as a Parquet set too

Rows have 20 float32 columns and a class of two. What is trained is an MLP of two layers of 256
at batch 256. The speeds are of the same step on rows from disk and on rows in memory, a turn
each, in one process; the memory is that of a process that does nothing but a whole run of
`kerastrain.train` on the set on disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.stored import ExamplesWriter, StoredExamples

COLUMNS, BATCH_SIZE = 20, 256
PIECE = 1_000_000


def piece(number: int, rows: int) -> Examples:
    """Rows that can be learned: the class is the sign of a sum of products, with noise."""
    rng = np.random.default_rng([0, number])
    x = rng.standard_normal((rows, COLUMNS), np.float32)
    score = (x[:, :10] * x[:, 10:]).sum(axis=1) + rng.standard_normal(rows, np.float32)
    return Examples(x, (score > 0).astype(np.int32))


def pieces(rows: int):
    for number, first in enumerate(range(0, rows, PIECE)):
        yield piece(number, min(PIECE, rows - first))


def write(folder: Path, rows: int) -> StoredExamples:
    began = time.perf_counter()
    with ExamplesWriter(folder) as writer:
        for examples in pieces(rows):
            writer.append(examples)
        stored = writer.finish()
    print(f"wrote {rows:,} rows, {stored.nbytes / 1e9:.2f} GB: {time.perf_counter() - began:.1f} s")
    return stored


def write_parquet(folder: Path, rows: int) -> None:
    """A file for each million rows; the columns are x0 to x19 and target."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for number, examples in enumerate(pieces(rows)):
        columns = {f"x{i}": examples.inputs[:, i] for i in range(COLUMNS)}
        table = pa.table({**columns, "target": examples.targets})
        pq.write_table(table, folder / f"part-{number:03}.parquet", row_group_size=131_072)
    print(f"wrote the Parquet set {folder}")


def mlp():
    import keras

    features = keras.Input((COLUMNS,), name="features")
    x = keras.layers.Dense(256, activation="relu")(features)
    x = keras.layers.Dense(256, activation="relu")(x)
    model = keras.Model(features, keras.layers.Dense(2, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def gather_alone(stored: StoredExamples) -> None:
    """Order and rows of an epoch, without any training."""
    import kerastrain.data.order  # noqa: F401 (imports TensorFlow, which is not to be timed)
    from kerastrain.data.block_cache import BlockCache

    began = time.perf_counter()
    order = stored.order(seed=0, epoch=0).numpy()
    print(f"order of an epoch: {time.perf_counter() - began:.2f} s")
    chunk = 64 * BATCH_SIZE
    cache = BlockCache(stored, spare_rows=chunk)
    began = time.perf_counter()
    for first in range(0, len(stored), chunk):
        cache.take(order[first : first + chunk].astype(np.int64))
    seconds = time.perf_counter() - began
    print(f"reading and gathering alone: {len(stored) / seconds / 1e6:.2f} million rows/s")


def speeds(stored: StoredExamples, *, memory_rows: int, rounds: int, seconds: float) -> None:
    """Examples/s from disk and from memory, in turn."""
    import tensorflow as tf

    from kerastrain.training.executor import Executor
    from kerastrain.training.state import TrainState
    from kerastrain.training.steps import supervised_step

    in_memory = stored.take(np.arange(min(memory_rows, len(stored))))
    executors = {}
    for name, examples in (("memory", in_memory), ("disk", stored)):
        first = examples.take(np.arange(4)).structure()
        state = TrainState(mlp(), strategy=tf.distribute.get_strategy(), seed=0, batch=first)
        executors[name] = Executor(state, supervised_step, examples, batch_size=BATCH_SIZE, seed=0)
    steps = dict.fromkeys(executors, 0)
    measured: dict[str, list[float]] = {name: [] for name in executors}
    for turn in range(rounds + 1):
        for name, executor in executors.items():
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                executor.run(steps[name], 512, jit=True)
                steps[name] += 512
                done += 512 * BATCH_SIZE
            if turn:  # The first one compiles.
                measured[name].append(done / (time.perf_counter() - began))
    for name, values in measured.items():
        shown = ", ".join(f"{value:,.0f}" for value in values)
        print(f"{name:<6} {statistics.median(values):>9,.0f} examples/s ({shown})")
    pairs = zip(measured["disk"], measured["memory"], strict=True)
    print(f"disk/memory: {statistics.median(d / m for d, m in pairs):.2f} (median of the rounds')")


def train(folder: Path, workdir: str, steps: int) -> None:
    """A whole run; prints the most memory that this process ever had."""
    import kerastrain

    data = Data(
        train=StoredExamples.open(folder),
        validation=piece(10_000, 50_000),
        test=piece(10_001, 50_000),
        task=Classification((0, 1)),
    )
    result = kerastrain.train(
        mlp, data, workdir=workdir, max_steps=steps, batch_size=BATCH_SIZE, verbose=0
    )
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM"))
    print(f"run of {result.step:,} steps: {dict(result.metrics)}")
    print(f"peak resident memory {int(peak.split()[1]) / 2**20:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--memory_rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "streaming")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--steps", type=int, default=0, help="of the whole run; 0: an epoch's")
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--only_train", metavar="WORKDIR", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder / f"rows-{given.rows}"
    steps = given.steps or -(-given.rows // BATCH_SIZE)
    if given.only_train:
        train(folder, given.only_train, steps)
        return
    stored = StoredExamples.open(folder) if folder.is_dir() else write(folder, given.rows)
    if given.parquet:
        write_parquet(given.folder / f"parquet-{given.rows}", given.rows)
    gather_alone(stored)
    with tempfile.TemporaryDirectory() as workdir:
        flags = [f"--rows={given.rows}", f"--folder={given.folder}", f"--steps={steps}"]
        subprocess.run(
            [sys.executable, __file__, *flags, f"--only_train={workdir}/run"], check=True
        )
    speeds(stored, memory_rows=given.memory_rows, rounds=given.rounds, seconds=given.seconds)


if __name__ == "__main__":
    main()
