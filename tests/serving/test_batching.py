"""Who is called with whom, where, and what happens when it takes too long."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.serving.batching import Batching, Caller
from kerastrain.serving.failures import ServingError
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.servable import Signature, TensorInfo


def signature(shape=(None, 2)):
    return Signature(
        "serving_default",
        {"x": TensorInfo("x", tf.float32, shape)},
        {"y": TensorInfo("y", tf.float32, shape)},
        "tensorflow/serving/predict",
    )


class Doubling:
    """Stands for a servable: doubles; notes the rows of each call and its thread."""

    model = "m"

    def __init__(self, *, seconds=0.0):
        self.seconds = seconds
        self.calls = []
        self.threads = set()

    def call(self, name, inputs, *, in_this_thread=False):
        # What is called on the loop is called so always.
        assert in_this_thread or threading.current_thread() is not threading.main_thread()
        x = inputs["x"]
        self.calls.append(len(x))
        self.threads.add(threading.current_thread())
        time.sleep(self.seconds)
        if np.isnan(x).any():
            raise ServingError("INVALID_ARGUMENT", "NaN cannot be doubled")
        return {"y": 2 * x}


class Waiting(Doubling):
    """Answers nobody before it may."""

    def __init__(self):
        super().__init__()
        self.may_answer = threading.Event()
        self._called = threading.Event()

    def call(self, name, inputs, **how):
        self._called.set()
        assert self.may_answer.wait(30)
        return super().call(name, inputs, **how)

    async def is_called(self):
        assert await asyncio.to_thread(self._called.wait, 30)


def rows(*values):
    return np.array([[value, value + 0.5] for value in values], np.float32)


async def become_known(caller, servable):
    """Both ways of calling have been tried."""
    for _ in range(2):
        await ask(caller, servable, rows(0))


async def ask(caller, servable, x, *, sig=None, seconds=10.0):
    answer = await caller.call(
        servable, sig or signature(), {"x": x}, len(x), timeout_seconds=seconds
    )
    return answer["y"]


def run(coroutine_of, **batching):
    """Runs a test with a Caller of these settings."""

    async def body():
        caller = Caller(Batching(**batching), Metrics())
        try:
            return await asyncio.wait_for(coroutine_of(caller), 30)
        finally:
            await caller.close()

    return asyncio.run(body())


def test_requests_of_the_same_moment_are_called_together_and_get_their_own_rows():
    servable = Doubling()

    async def test(caller):
        await ask(caller, servable, rows(0))  # now it is known to be fast
        answers = await asyncio.gather(*(ask(caller, servable, rows(i, i + 9)) for i in range(20)))
        for i, answer in enumerate(answers):
            np.testing.assert_array_equal(answer, 2 * rows(i, i + 9))

    run(test, max_batch_size=16)
    assert servable.calls == [1, 16, 16, 8]


def test_a_client_that_is_alone_is_neither_batched_nor_kept_waiting():
    servable = Doubling()

    async def test(caller):
        start = time.perf_counter()
        for i in range(5):
            await ask(caller, servable, rows(i))
        return time.perf_counter() - start

    assert run(test, batch_timeout_micros=10_000_000) < 5
    assert servable.calls == [1] * 5


async def one_by_one(caller, servable, count):
    """Requests that reach the caller in different turns of the loop, as they do over a network."""
    tasks = []
    for i in range(count):
        tasks.append(asyncio.create_task(ask(caller, servable, rows(i))))
        for _ in range(3):
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)


def test_where_requests_have_come_together_a_call_waits_for_those_that_follow():
    servable = Doubling()

    async def test(caller):
        await become_known(caller, servable)
        await asyncio.gather(*(ask(caller, servable, rows(i)) for i in range(8)))
        servable.calls.clear()
        await one_by_one(caller, servable, 20)

    run(test)
    assert servable.calls == [10, 10]
    run(test, batch_timeout_micros=0)
    assert max(servable.calls) < 8


def test_clients_that_always_come_one_after_the_other_are_found_out():
    servable = Doubling()

    async def test(caller):
        for _ in range(20):
            await one_by_one(caller, servable, 20)

    run(test)
    assert servable.calls[0] == 1
    assert max(servable.calls[-10:]) > 4


def test_a_crowd_that_has_gone_is_forgotten():
    servable = Doubling()

    async def test(caller):
        await asyncio.gather(*(ask(caller, servable, rows(i)) for i in range(64)))
        start = time.perf_counter()
        for _ in range(300):
            await ask(caller, servable, rows(0))
        return time.perf_counter() - start

    # Some twenty calls wait for a millisecond, and then one in 64.
    assert run(test) < 0.3


def test_only_rows_of_one_shape_are_put_together():
    servable, loose = Doubling(), signature((None, None))

    async def test(caller):
        await ask(caller, servable, rows(0), sig=loose)
        narrow, wide = np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)
        await asyncio.gather(*(ask(caller, servable, x, sig=loose) for x in (narrow, narrow, wide)))

    run(test)
    assert servable.calls == [1, 2, 1]


@pytest.mark.parametrize("sig", [signature((2, 2)), signature(None)], ids=["fixed", "no rank"])
def test_signatures_without_rows_are_called_one_by_one(sig):
    servable = Doubling()

    async def test(caller):
        await asyncio.gather(*(ask(caller, servable, rows(1, 2), sig=sig) for _ in range(5)))

    run(test)
    assert servable.calls == [2] * 5


def test_the_mistake_of_one_is_not_told_to_the_others():
    servable = Doubling()

    async def test(caller):
        await ask(caller, servable, rows(0))
        asked = (ask(caller, servable, rows(x)) for x in (1, np.nan, 3))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run(test)
    np.testing.assert_array_equal(first, 2 * rows(1))
    np.testing.assert_array_equal(third, 2 * rows(3))
    assert isinstance(second, ServingError) and "NaN" in second.message


def test_outputs_that_are_not_one_for_each_row_are_asked_again_one_by_one():
    class Summing(Doubling):
        def call(self, name, inputs, **how):
            return {"y": super().call(name, inputs, **how)["y"].sum(axis=0, keepdims=True)}

    servable = Summing()

    async def test(caller):
        await ask(caller, servable, rows(0))
        return await asyncio.gather(*(ask(caller, servable, rows(i)) for i in (1, 2)))

    np.testing.assert_array_equal(run(test), [2 * rows(1), 2 * rows(2)])


def test_fast_functions_are_called_on_the_loop_and_slow_ones_in_threads():
    fast, slow = Doubling(), Doubling(seconds=0.01)

    async def test(caller):
        for servable in (fast, slow):
            await become_known(caller, servable)
            servable.threads.clear()
            await ask(caller, servable, rows(0))

    run(test)
    assert fast.threads == {threading.main_thread()}
    assert threading.main_thread() not in slow.threads


def test_many_rows_for_a_fast_function_do_not_hold_up_the_loop():
    servable = Doubling()

    async def test(caller):
        await ask(caller, servable, rows(0))
        servable.threads.clear()
        await ask(caller, servable, np.zeros((1_000_000, 2), np.float32))

    run(test)
    assert threading.main_thread() not in servable.threads


def test_a_full_queue_refuses():
    servable = Doubling(seconds=0.05)

    async def test(caller):
        asked = (ask(caller, servable, rows(i)) for i in range(20))
        return await asyncio.gather(*asked, return_exceptions=True)

    small = {"max_batch_size": 2, "max_enqueued_batches": 2, "num_batch_threads": 1}
    for enabled, most in ((True, 6), (False, 3)):
        answers = run(test, enabled=enabled, **small)
        refused = [answer for answer in answers if isinstance(answer, ServingError)]
        assert {error.code for error in refused} == {"RESOURCE_EXHAUSTED"}
        assert 20 - most <= len(refused) < 20


def test_what_takes_too_long_is_told_so_while_it_runs_and_while_it_waits():
    servable = Doubling(seconds=0.2)

    async def test(caller):
        asked = (ask(caller, servable, rows(i), seconds=0.05) for i in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = run(test, max_batch_size=1, num_batch_threads=1)
    assert [error.code for error in answers] == ["DEADLINE_EXCEEDED"] * 3
    assert servable.calls == [1]  # those that waited were not called for nothing


def test_a_client_that_is_gone_is_not_called_for():
    servable = Waiting()

    async def test(caller):
        tasks = [asyncio.create_task(ask(caller, servable, rows(i))) for i in range(4)]
        await servable.is_called()
        for task in tasks[1:3]:
            task.cancel()
        servable.may_answer.set()
        np.testing.assert_array_equal(await tasks[3], 2 * rows(3))

    run(test, max_batch_size=1, num_batch_threads=1)
    assert servable.calls == [1, 1]


def test_a_closed_caller_refuses_and_finishes_what_is_being_called():
    servable = Waiting()

    async def test(caller):
        tasks = [asyncio.create_task(ask(caller, servable, rows(i))) for i in range(2)]
        await servable.is_called()
        asyncio.get_running_loop().call_later(0.05, servable.may_answer.set)
        await caller.close()
        with pytest.raises(ServingError, match="shut down") as raised:
            await ask(caller, servable, rows(0))
        assert raised.value.code == "UNAVAILABLE"
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second = run(test, max_batch_size=1, num_batch_threads=1)
    np.testing.assert_array_equal(first, 2 * rows(0))
    assert second.code == "UNAVAILABLE"


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    max_batch_size=st.integers(1, 8),
    enabled=st.booleans(),
)
def test_everybody_gets_the_answer_to_what_was_asked(sizes, max_batch_size, enabled):
    servable = Doubling()

    async def test(caller):
        parts = [rows(*range(100 * i, 100 * i + size)) for i, size in enumerate(sizes)]
        parts = [part.reshape(-1, 2) for part in parts]
        answers = await asyncio.gather(*(ask(caller, servable, part) for part in parts))
        for part, answer in zip(parts, answers, strict=True):
            np.testing.assert_array_equal(answer, 2 * part)

    run(test, max_batch_size=max_batch_size, enabled=enabled)
    assert all(size <= max(max_batch_size, *sizes) for size in servable.calls)
