"""The server under load: requests lost while versions change, CPU per request, batching over gRPC.

    python benchmarks/serving.py [--only=load,cpu,grpc] [--seconds=60] [--connections=64]

A perceptron 784-128-10 is published and served by `kerastrain serve` in a process of its own; this
process asks it over loopback with rows of 784 numbers, prepared beforehand, so that as little of
the machine as possible goes to the client.

load   for so many seconds over so many connections, while a new version is published three times
cpu    processor time of the server for a request, beside that of a bare Starlette handler that
       calls the same function (json, NumPy, the signature; nothing else), in turns
grpc   requests/s with batching and without, in turns
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MODEL = "mlp"
COLUMNS = 784
ROUNDS = 5
BARE = """
import json, sys
from pathlib import Path
import numpy as np, tensorflow as tf, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

loaded = tf.saved_model.load(str(Path(sys.argv[1])))
signature = loaded.signatures["serving_default"]

async def predict(request):
    rows = np.array(json.loads(await request.body())["instances"], np.float32)
    answers = {n: t.numpy() for n, t in signature(pixels=tf.constant(rows)).items()}
    rows = [{n: a[i].tolist() for n, a in answers.items()} for i in range(len(rows))]
    return JSONResponse({"predictions": rows})

app = Starlette(routes=[Route("/v1/models/mlp:predict", predict, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="warning")
"""


@dataclass
class Load:
    """What came of some seconds of asking.

    Attributes:
        latencies: seconds of each request that was answered with 200.
        failures: what else happened -> how often.
    """

    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.latencies, 100 * share)) * 1e3


def published_model(folder: Path) -> Path:
    """The base folder of a small trained perceptron."""
    import keras

    import kerastrain

    generator = np.random.default_rng(0)
    rows = generator.random((2000, COLUMNS), np.float32)
    labels = generator.integers(0, 10, 2000)
    layers = [keras.Input((COLUMNS,), name="pixels"), keras.layers.Dense(128, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    data = {"validation": (rows[:200], labels[:200]), "workdir": folder / MODEL}
    result = kerastrain.train(model, (rows, labels), max_epochs=1, verbose=0, **data)
    return result.export.parent


def publish_again(base: Path) -> None:
    """Version 1 as the next one, put in its place as a publisher does it."""
    from kerastrain.export.placing import move_into_place, pending_folder

    with pending_folder(base) as pending:
        shutil.copytree(base / "1", pending / "model")
        move_into_place(pending / "model", base)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command: list[str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers on the URL `ready`; ended by SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(ready, timeout=1).read()
                    break
                time.sleep(0.1)
            yield started
        finally:
            started.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def served(base: Path, *flags: str) -> Iterator[tuple[int, int, int]]:
    """`kerastrain serve`: process id, REST port, gRPC port."""
    rest, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "kerastrain", "serve", f"--model={MODEL}={base}"]
    command += [f"--rest_port={rest}", f"--grpc_port={grpc}", *flags]
    with process(command, f"http://127.0.0.1:{rest}/v1/models/{MODEL}") as server:
        yield server.pid, rest, grpc


@contextlib.contextmanager
def bare(base: Path) -> Iterator[tuple[int, int]]:
    """The bare handler: process id, port."""
    port = free_port()
    version = max(base.glob("[0-9]*"), key=lambda path: int(path.name))
    command = [sys.executable, "-c", BARE, str(version), str(port)]
    # Any path: its 404 is an answer, too.
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        stack.callback(server.terminate)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield server.pid, port


def request_bytes(rows: int = 1) -> bytes:
    """A whole POST of rows of 784 numbers with four decimals, as images divided by 255 have."""
    values = np.random.default_rng(1).random((rows, COLUMNS)).round(4).tolist()
    body = json.dumps({"instances": values}).encode()
    head = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nHost: localhost\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(port: int, *, connections: int, seconds: float) -> Load:
    """Each connection asks again as soon as it is answered."""
    load, message, end = Load(), request_bytes(), time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(message)
            status = await response_status(reader)
            if status == b"200":
                load.latencies.append(time.perf_counter() - began)
            else:
                load.failures[status.decode()] += 1
        writer.close()

    for outcome in await asyncio.gather(
        *(client() for _ in range(connections)), return_exceptions=True
    ):
        if outcome is not None:
            load.failures[repr(outcome)] += 1
    return load


async def response_status(reader: asyncio.StreamReader) -> bytes:
    """Reads one response to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
    await reader.readexactly(int(length))
    return head.split(b" ", 2)[1]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def under_load(base: Path, *, connections: int, seconds: float) -> None:
    async def publish(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(seconds / (times + 1))
            await asyncio.to_thread(publish_again, base)

    with served(base) as (_, port, _grpc):
        await ask(port, connections=connections, seconds=1)
        load, _ = await asyncio.gather(
            ask(port, connections=connections, seconds=seconds), publish(3)
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/{MODEL}") as answer:
            states = json.loads(answer.read())["model_version_status"]
    shown = ", ".join(f"{state['version']} {state['state']}" for state in states)
    print(
        f"load: {len(load.latencies):,} answers over {connections} connections in {seconds:g} s "
        f"({len(load.latencies) / seconds:,.0f}/s), p50 {load.percentile(0.5):.1f} ms, "
        f"p99 {load.percentile(0.99):.1f} ms; failed: {sum(load.failures.values())} "
        f"{dict(load.failures) or ''}; versions: {shown}"
    )


async def cpu_per_request(base: Path, *, connections: int, seconds: float) -> None:
    """Microseconds of processor time for a request, ours and bare, in turns."""
    with served(base) as (ours, port, _grpc), bare(base) as (theirs, bare_port):
        sides = {"kerastrain": (ours, port), "bare": (theirs, bare_port)}
        for count in (1, connections):
            measured: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(ROUNDS):
                for name, (pid, at) in sides.items():
                    await ask(at, connections=count, seconds=0.5)
                    before = cpu_seconds(pid)
                    load = await ask(at, connections=count, seconds=seconds / ROUNDS / 4)
                    assert not load.failures, load.failures
                    measured[name].append((cpu_seconds(pid) - before) / len(load.latencies) * 1e6)
            ratio = statistics.median(map(float.__truediv__, *measured.values()))
            shown = ", ".join(f"{n} {statistics.median(v):.0f} µs" for n, v in measured.items())
            print(f"cpu: {count} connections: {shown} a request; {ratio:.2f} x")


async def ask_grpc(port: int, *, connections: int, seconds: float) -> float:
    """Requests answered in a second, of `connections` that ask at the same time."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    row = np.random.default_rng(1).random((1, COLUMNS), np.float32)
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(row))
    message, answered, end = request.SerializeToString(), 0, time.perf_counter() + seconds

    async def client(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        # Bytes as they are: the client's own parsing is not what is measured.
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        while time.perf_counter() < end:
            await call(message)
            answered += 1

    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            for _ in range(4)
        ]
        began = time.perf_counter()
        await asyncio.gather(*(client(channels[i % 4]) for i in range(connections)))
        return answered / (time.perf_counter() - began)


async def batching_over_grpc(base: Path, *, connections: int, seconds: float) -> None:
    """Throughput, and the server's processor time for a request, with batching and without."""
    rates: dict[str, list[float]] = {"batching": [], "without": []}
    times: dict[str, list[float]] = {"batching": [], "without": []}
    with served(base) as (pid, _, port), served(base, "--noenable_batching") as (other, _, plain):
        sides = {"batching": (pid, port), "without": (other, plain)}
        for _ in range(ROUNDS):
            for name, (server, at) in sides.items():
                await ask_grpc(at, connections=connections, seconds=0.5)
                before, each = cpu_seconds(server), seconds / ROUNDS / 2
                rate = await ask_grpc(at, connections=connections, seconds=each)
                rates[name].append(rate)
                times[name].append((cpu_seconds(server) - before) / (rate * each) * 1e6)
    for what, values, unit in (("", rates, "requests/s"), ("cpu ", times, "µs a request")):
        ratio = statistics.median(map(float.__truediv__, *values.values()))
        shown = ", ".join(f"{n} {statistics.median(v):,.0f}" for n, v in values.items())
        print(f"grpc: {what}{shown} {unit} at {connections} at the same time; {ratio:.2f} x")


PARTS = {"load": under_load, "cpu": cpu_per_request, "grpc": batching_over_grpc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = published_model(Path(folder))
        for part in arguments.only.split(","):
            measure = PARTS[part](
                base, connections=arguments.connections, seconds=arguments.seconds
            )
            asyncio.run(measure)


if __name__ == "__main__":
    main()
