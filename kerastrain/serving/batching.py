"""When and where a model's function is called: at once, in a thread, or with others' rows.

    caller = Caller(Batching(), metrics)
    outputs = await caller.call(servable, signature, inputs, rows, timeout_seconds=30.0)

Requests that arrive in the same turn of the event loop, or while calls are being made, are
put together, up to `max_batch_size` rows: one call for 32 rows takes hardly longer than one
for a single row. A client that is alone does not wait for others. Functions that are done
within a millisecond are called on the event loop itself, where passing them to a thread and
back would take as long again; slower ones in threads, so that the loop goes on answering.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.lanes import Lane, Outputs, Request
from kerastrain.serving.metrics import WAITING_REQUESTS, Metrics
from kerastrain.serving.servable import Servable, Signature
from kerastrain.serving.together import call_together

# A call that is expected to be shorter than this is made on the event loop.
INLINE_SECONDS = 0.001


@dataclass(frozen=True)
class Batching:
    """The names are those of TensorFlow Serving's batching parameters.

    Attributes:
        enabled: put the rows of several requests together.
        max_batch_size: rows of one call; a request with more is called alone.
        batch_timeout_micros: how long requests that are not alone wait for more at most; they
            wait only while more do come.
        max_enqueued_batches: full batches (without batching: requests) that may wait.
        num_batch_threads: calls that may be made at the same time; 0: one for each processor.
    """

    enabled: bool = True
    max_batch_size: int = 128
    batch_timeout_micros: int = 5000
    max_enqueued_batches: int = 128
    num_batch_threads: int = 0


class Caller:
    """Makes the calls; all its methods belong to one event loop."""

    def __init__(self, batching: Batching, metrics: Metrics):
        self._batching = batching
        self._metrics = metrics
        self._threads = batching.num_batch_threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="predict")
        self._busy = 0
        # Of versions that are gone, their lanes go too.
        self._lanes: weakref.WeakKeyDictionary[Servable, dict[str, Lane]] = (
            weakref.WeakKeyDictionary()
        )
        self._ready: dict[Lane, None] = {}  # lanes in which requests wait, in their turn
        self._is_pump_due = False
        self._is_closed = False
        metrics.set_gauge(WAITING_REQUESTS, lambda: sum(len(lane.waiting) for lane in self._ready))

    async def call(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        rows: int | None,
        *,
        timeout_seconds: float,
    ) -> Outputs:
        """The function's answers for these inputs, which have been checked.

        Args:
            rows: None where the inputs have no common number of them.

        Raises:
            ServingError: the function's; RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE.
        """
        if self._is_closed:
            raise ServingError("UNAVAILABLE", "The server is being shut down.")
        lane = self._lane(servable, signature)
        is_batchable = self._batching.enabled and rows is not None and signature.is_batchable
        is_fast = lane.in_one_thread.expected(rows or 1) < INLINE_SECONDS
        loop = asyncio.get_running_loop()
        request = Request(
            servable,
            inputs,
            rows=rows or 1,
            key=lane.key(inputs) if is_batchable else None,
            timeout_seconds=timeout_seconds,
            loop=loop,
        )
        if is_fast and not is_batchable and not lane.waiting:
            self._call_inline(lane, [request])
            return request.future.result()
        self._refuse_when_full(lane, request.rows)
        if not is_fast:
            request.expire_at_deadline(loop)
        lane.add(request)
        self._ready.setdefault(lane)
        # Not now: whoever else has its turn in this round of the loop may bring more rows.
        self._pump_soon(loop)
        return await request.future

    async def close(self) -> None:
        """Refuses what waits and what comes; returns when no call is being made any more."""
        self._is_closed = True
        for lane in self._ready:
            for request in lane.waiting:
                request.settle(ServingError("UNAVAILABLE", "The server is being shut down."))
            lane.waiting.clear()
        while self._busy:
            await asyncio.sleep(0.01)
        self._pool.shutdown(wait=False)

    def _lane(self, servable: Servable, signature: Signature) -> Lane:
        lanes = self._lanes.get(servable)
        if lanes is None:
            lanes = self._lanes[servable] = {}
        lane = lanes.get(signature.name)
        if lane is None:
            lane = lanes[signature.name] = Lane(signature)
        return lane

    def _refuse_when_full(self, lane: Lane, rows: int) -> None:
        settings = self._batching
        if settings.enabled:
            limit = settings.max_enqueued_batches * settings.max_batch_size
            is_full = bool(lane.waiting) and lane.waiting_rows + rows > limit
        else:
            is_full = len(lane.waiting) >= settings.max_enqueued_batches
        if is_full:
            raise ServingError(
                "RESOURCE_EXHAUSTED",
                "The batch scheduling queue to which this task was submitted is full: "
                f"{len(lane.waiting):,} requests with {lane.waiting_rows:,} rows wait already. "
                "Try again later.",
            )

    def _pump_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_pump_due:
            self._is_pump_due = True
            loop.call_soon(self._pump, loop)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls what can be called now; each lane in its turn.

        What stays is looked at again when a thread is done, when the pause for more requests
        is over, or, after a call on the loop, in the loop's next turn.
        """
        self._is_pump_due = False
        size, timeout = self._batching.max_batch_size, self._batching.batch_timeout_micros * 1e-6
        is_due_again = False
        for lane in list(self._ready):
            if not lane.waiting:
                del self._ready[lane]
                continue
            is_inline = lane.in_one_thread.expected(lane.next_rows(size)) < INLINE_SECONDS
            if not is_inline and self._busy >= self._threads:
                continue
            if lane.is_gathering and not lane.is_complete(size):
                continue
            if pause := lane.pause(size, loop.time(), timeout_seconds=timeout):
                lane.is_gathering = True
                loop.call_later(pause, self._gathered, lane, loop)
                continue
            del self._ready[lane]
            batch = lane.take(size, loop.time())
            if lane.waiting:
                self._ready[lane] = None  # behind the others
            if is_inline:
                self._call_inline(lane, batch)
                is_due_again = bool(self._ready)
                break
            self._call_in_thread(lane, batch, loop)
            is_due_again |= bool(lane.waiting)
        if is_due_again:
            self._pump_soon(loop)

    def _gathered(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        lane.is_gathering = False
        self._pump_soon(loop)

    def _call_inline(self, lane: Lane, batch: list[Request]) -> None:
        if batch:
            made = self._call(lane, batch, in_this_thread=True)
            self._settle(lane, batch, *made, in_this_thread=True)

    def _call_in_thread(
        self, lane: Lane, batch: list[Request], loop: asyncio.AbstractEventLoop
    ) -> None:
        if not batch:
            return
        self._busy += 1
        for request in batch:
            request.expire_at_deadline(loop)

        is_small = lane.suits_one_thread(sum(request.rows for request in batch))

        def done(outcomes: list[Outputs | Exception], seconds: float) -> None:
            self._busy -= 1
            self._settle(lane, batch, outcomes, seconds, in_this_thread=is_small)
            self._pump_soon(loop)

        called = self._pool.submit(self._call, lane, batch, in_this_thread=is_small)
        called.add_done_callback(lambda made: loop.call_soon_threadsafe(done, *made.result()))

    def _call(
        self, lane: Lane, batch: list[Request], *, in_this_thread: bool
    ) -> tuple[list[Outputs | Exception], float]:
        """One call for all; what each is to be told, and the seconds that it took."""
        start = time.perf_counter()
        outcomes = call_together(
            batch[0].servable,
            lane.signature,
            [request.inputs for request in batch],
            [request.rows for request in batch],
            in_this_thread=in_this_thread,
        )
        return outcomes, time.perf_counter() - start

    def _settle(
        self,
        lane: Lane,
        batch: list[Request],
        outcomes: list[Outputs | Exception],
        seconds: float,
        *,
        in_this_thread: bool,
    ) -> None:
        rows = sum(request.rows for request in batch)
        lane.learn(seconds, rows, in_this_thread=in_this_thread)
        self._metrics.observe_runtime(batch[0].servable.model, seconds, rows)
        for request, outcome in zip(batch, outcomes, strict=True):
            request.settle(outcome)
