"""Requests that wait for a call of one function, and what is known of its calls.

lane = Lane(signature)
lane.add(Request(servable, inputs, rows=8, key=lane.key(inputs), deadline=…, loop=loop))
lane.expected_seconds(8)              # 0.0002, from the calls before
lane.take(max_rows=128, now=…)        # [Request, …]: may be called together
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import Servable, Signature

Outputs = dict[str, np.ndarray]

# A lone client would wait for nobody; so many at once are none (an average).
_ALONE = 1.5
# Seconds without a new request after which no more is waited for: what gRPC takes from a
# request's headers to its message.
_QUIET_SECONDS = 150e-6


class Request:
    """Rows that wait for their answer.

    Attributes:
        key: requests with the same one may be called together; None: with no other.
        arrived, deadline: on the loop's clock, in seconds.
    """

    __slots__ = ("_timer", "arrived", "deadline", "future", "inputs", "key", "rows", "servable")

    def __init__(
        self,
        servable: Servable,
        inputs: Mapping[str, np.ndarray],
        *,
        rows: int,
        key: Any,
        timeout_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ):
        self.servable = servable
        self.inputs = inputs
        self.rows = rows
        self.key = key
        self.arrived = loop.time()
        self.deadline = self.arrived + timeout_seconds
        self.future: asyncio.Future[Outputs] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    def settle(self, outcome: Outputs | BaseException) -> None:
        """Gives the answer, unless nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def expire(self) -> None:
        seconds = self.deadline - self.arrived
        self.settle(
            ServingError("DEADLINE_EXCEEDED", f"The answer was not there after {seconds:g} s.")
        )

    def expire_at_deadline(self, loop: asyncio.AbstractEventLoop) -> None:
        """For a request that will not be answered at once."""
        if self._timer is None:
            self._timer = loop.call_at(self.deadline, self.expire)


class Lane:
    """The requests of one signature of one version, how many come together, how long calls take."""

    __slots__ = (
        "_company",
        "_has_one_shape",
        "_rows",
        "_seconds",
        "_seen",
        "_seen_at",
        "signature",
        "waiting",
        "waiting_rows",
    )

    def __init__(self, signature: Signature):
        self.signature = signature
        self.waiting: deque[Request] = deque()
        self.waiting_rows = 0
        self._seconds: float | None = None
        self._rows = 1.0
        self._company = 1.0  # requests of a call, lately
        self._seen = 0
        self._seen_at = 0.0
        shapes = [info.shape for info in signature.inputs.values()]
        self._has_one_shape = all(shape and None not in shape[1:] for shape in shapes)

    def key(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """What inputs must have in common to be called together: the shapes of their rows."""
        if self._has_one_shape:
            return ()
        return tuple(inputs[name].shape[1:] for name in self.signature.inputs)

    def expected_seconds(self, rows: int) -> float:
        """Of a call, from the recent ones; at worst in proportion to its rows."""
        if self._seconds is None:
            return float("inf")
        return self._seconds * max(1.0, rows / self._rows)

    def learn(self, seconds: float, rows: int) -> None:
        """Keeps a moving average that falls faster than it rises.

        What a call takes beyond its own work, waiting for Python's lock while other threads
        run, must not make the function look slow for ever.
        """
        if self._seconds is None:
            self._seconds, self._rows = seconds, float(rows)
            return
        share = 0.5 if seconds < self._seconds else 0.1
        self._seconds += share * (seconds - self._seconds)
        self._rows += share * (rows - self._rows)

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.waiting_rows += request.rows

    def is_growing(self, max_rows: int, now: float, *, timeout_seconds: float) -> bool:
        """Whether waiting for more requests is worth it; asked in each turn of the loop.

        A request takes several turns from the socket to here, and on a busy server each turn
        brings a few. So where requests have come together lately, a call waits until somewhat
        more than then are here, or none has come for a moment, or the time is over.
        """
        waiting = len(self.waiting)
        if self.waiting[0].key is None or max(waiting, self._company) < _ALONE:
            return False
        if self.waiting_rows >= max_rows or waiting >= int(1.25 * self._company):
            return False
        if now - self.waiting[0].arrived > timeout_seconds:
            return False
        if waiting > self._seen:
            self._seen, self._seen_at = waiting, now
        return now - self._seen_at < _QUIET_SECONDS

    def next_rows(self, max_rows: int) -> int:
        """How many rows `take` would give at most."""
        return max(self.waiting[0].rows, min(self.waiting_rows, max_rows))

    def take(self, max_rows: int, now: float) -> list[Request]:
        """The oldest request and those after it that may be called with it."""
        taken: list[Request] = []
        rows = 0
        while self.waiting:
            request = self.waiting[0]
            if taken and (
                request.key is None or request.key != taken[0].key or rows + request.rows > max_rows
            ):
                break
            self.waiting.popleft()
            self.waiting_rows -= request.rows
            if request.deadline < now:
                request.expire()
            elif not request.future.done():  # else its client is gone
                taken.append(request)
                rows += request.rows
        share = 1.0 if len(taken) > self._company else 0.25
        self._company += share * (len(taken) - self._company)
        self._seen = 0
        return taken
