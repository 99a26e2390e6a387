"""The server as a whole: ports, patience, new versions under load, the end."""

from __future__ import annotations

import asyncio
import json
import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from kerastrain.errors import KerastrainError
from kerastrain.serving import http_server
from kerastrain.serving.batching import Batching
from kerastrain.serving.models import ModelSpec
from kerastrain.serving.servable import Servable
from kerastrain.serving.server import Server, Settings


def settings(base, **changes):
    changes = {"rest_port": 0, "grpc_port": 0, "poll_seconds": 0.02, **changes}
    return Settings([ModelSpec("tiny", base)], **changes)


def request():
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "tiny"
    made.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([[1, 2]])))
    return made


async def http(port, content, *, until_closed=False):
    """Sends bytes as they are; gives what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        if until_closed:
            return await asyncio.wait_for(reader.read(), 10)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    finally:
        writer.close()


def post(path="/v1/models/tiny:predict", body=b'{"instances": [[1, 2]]}'):
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_both_protocols_give_the_same_answer(publish, tmp_path):
    publish(tmp_path, 1, scale=2.0)

    async def test():
        async with Server(settings(tmp_path)) as server:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                response = await stub.Predict(request())
            answer = await http(server.rest_port, post())
            lines = "\n".join(server.describe())
            assert "Model tiny: version 1" in lines and f":{server.rest_port}/" in lines
        total = json.loads(answer.split(b"\r\n\r\n")[1])["predictions"][0]["total"]
        assert total == response.outputs["total"].float_val[0] == 6.0

    asyncio.run(test())


def test_no_request_is_lost_while_versions_come_and_go(publish, tmp_path):
    publish(tmp_path, 1)

    async def test():
        totals, done = set(), asyncio.Event()

        async def client(stub):
            while not done.is_set():
                response = await stub.Predict(request())
                totals.add(response.outputs["total"].float_val[0])

        async with Server(settings(tmp_path)) as server:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                clients = [asyncio.create_task(client(stub)) for _ in range(8)]
                for version in (2, 3):
                    await asyncio.to_thread(publish, tmp_path, version, scale=float(version))
                    while server.models.statuses("tiny")[0].version != version or (
                        server.models.statuses("tiny")[0].state != "AVAILABLE"
                    ):
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.1)
                done.set()
                await asyncio.gather(*clients)
            while {s.state for s in server.models.statuses("tiny")} != {"AVAILABLE", "END"}:
                await asyncio.sleep(0.01)
        assert totals == {3.0, 6.0, 9.0}

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_base_without_versions_is_waited_on(publish, tmp_path):
    async def test():
        async with Server(settings(tmp_path)) as server:
            assert "no version yet" in server.describe()[0]
            assert b" 404 " in await http(server.rest_port, post())
            await asyncio.to_thread(publish, tmp_path, 1)
            while not server.models.is_ready:
                await asyncio.sleep(0.01)
            assert b" 200 " in await http(server.rest_port, post())

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_version_that_cannot_be_served_is_described(tmp_path):
    (tmp_path / "1").mkdir()

    async def test():
        async with Server(settings(tmp_path)) as server:
            assert "no version can be served: 1: " in server.describe()[0]

    asyncio.run(test())


@pytest.mark.parametrize("flag", ["rest_port", "grpc_port"])
def test_a_port_in_use_is_told_with_its_flag(tmp_path, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def test():
            async with Server(settings(tmp_path, **{flag: port})):
                pass

        with pytest.raises(KerastrainError, match=f"{port} cannot be listened on.*--{flag}"):
            asyncio.run(test())


def test_a_host_of_another_machine_is_told(tmp_path):
    async def test():
        async with Server(settings(tmp_path, host="192.0.2.1")):
            pass

    with pytest.raises(KerastrainError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        asyncio.run(test())


def test_clients_that_never_finish_their_headers_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.2)

    async def test():
        async with Server(settings(tmp_path, grpc_port=None)) as server:
            for beginning in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: "):
                assert await http(server.rest_port, beginning, until_closed=True) == b""
            # One that has been answered before and then stalls, too.
            whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            answer = await http(server.rest_port, whole + b"GET /heal", until_closed=True)
            assert answer.startswith(b"HTTP/1.1 ")

    asyncio.run(test())


def test_headers_without_end_are_refused(tmp_path):
    async def test():
        async with Server(settings(tmp_path, grpc_port=None)) as server:
            endless = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000
            answer = await http(server.rest_port, endless, until_closed=True)
            assert b" 431 " in answer.splitlines()[0]

    asyncio.run(test())


def test_what_is_being_answered_at_the_end_is_finished(publish, tmp_path, monkeypatch):
    publish(tmp_path, 1)

    async def test():
        async with Server(settings(tmp_path)) as server:
            slow_down(monkeypatch, 0.3)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                calls = [asyncio.ensure_future(stub.Predict(request()))]
                calls.append(asyncio.ensure_future(http(server.rest_port, post())))
                await asyncio.sleep(0.15)
                await server.stop()
                over_grpc, over_http = await asyncio.gather(*calls)
                assert over_grpc.outputs["total"].float_val[0] == 3.0
                assert b" 200 " in over_http
                with pytest.raises(OSError, match="refused|failed"):
                    await http(server.rest_port, post())
        assert server.is_clean

    asyncio.run(test())


def test_what_does_not_end_in_time_is_cut_off_and_admitted(publish, tmp_path, monkeypatch):
    publish(tmp_path, 1)

    async def test():
        server = Server(settings(tmp_path, shutdown_seconds=0.2, grpc_port=None))
        await server.start()
        slow_down(monkeypatch, 2.0)
        call = asyncio.ensure_future(http(server.rest_port, post()))
        await asyncio.sleep(0.1)
        await server.stop()
        assert not server.is_clean
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await call

    asyncio.run(test())


def slow_down(monkeypatch, seconds):
    call = Servable.call

    def slowly(self, name, inputs, **how):
        import time

        time.sleep(seconds)
        return call(self, name, inputs)

    monkeypatch.setattr(Servable, "call", slowly)
    # Its calls were fast so far; nothing may be called on the loop that takes so long.
    monkeypatch.setattr("kerastrain.serving.batching.INLINE_SECONDS", 0.0)


def test_too_much_at_once_is_refused_with_429(publish, tmp_path, monkeypatch):
    publish(tmp_path, 1)
    batching = Batching(max_batch_size=1, max_enqueued_batches=1, num_batch_threads=1)

    async def test():
        async with Server(settings(tmp_path, grpc_port=None, batching=batching)) as server:
            slow_down(monkeypatch, 0.2)
            calls = (http(server.rest_port, post()) for _ in range(6))
            statuses = [answer.split()[1] for answer in await asyncio.gather(*calls)]
            assert set(statuses) == {b"200", b"429"}

    asyncio.run(test())
