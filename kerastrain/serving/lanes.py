"""Requests that wait for a call of one function, and what is known of its calls.

lane = Lane(signature)
lane.add(Request(servable, inputs, rows=8, key=lane.key(inputs), deadline=…, loop=loop))
lane.in_one_thread.expected(8)        # 0.0002 seconds, from the calls before
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

# Requests of a call, on average, below which a client is alone and waits for nobody.
_ALONE = 1.5
# How long to see whether more requests come; and after how many calls this is tried though
# nobody is expected: requests that are handled one after the other, each to its end, look like
# those of one client.
_PAUSE_SECONDS = 0.001
_CALLS_TO_A_TRY = 64
# Calls that take less on TensorFlow's threads are tried in one: to hand operations to other
# threads costs up to milliseconds where there are many inputs.
ONE_THREAD_SECONDS = 0.005
# By so much the time that is hoped for in one way of calling shrinks with each call in the other.
FADING = 0.99


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


class CallTimes:
    """How long calls take that are made in one way, from the recent ones."""

    __slots__ = ("_belief", "_rows", "_seconds")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._rows = 1.0
        self._belief = 1.0

    def expected(self, rows: int) -> float:
        """Seconds of a call; at worst in proportion to its rows; infinite before the first."""
        if self._seconds is None:
            return float("inf")
        return self._seconds * max(1.0, rows / self._rows)

    def hoped(self, rows: int) -> float:
        """The same, but less for every call that was made in the other way meanwhile, so that
        this one is tried again; 0 before the first."""
        return 0.0 if self._seconds is None else self._belief * self.expected(rows)

    def learn(self, seconds: float, rows: int) -> None:
        """Keeps a moving average that falls faster than it rises.

        What a call takes beyond its own work, waiting for Python's lock while other threads
        run, must not make the function look slow for ever.
        """
        if self._seconds is None or self._belief < 1.0:
            self._seconds, self._rows, self._belief = seconds, float(rows), 1.0
            return
        share = 0.5 if seconds < self._seconds else 0.1
        self._seconds += share * (seconds - self._seconds)
        self._rows += share * (rows - self._rows)

    def fade(self) -> None:
        """A call was made in the other way."""
        self._belief *= FADING


class Lane:
    """The requests of one signature of one version, how many come together, how long calls take.

    Attributes:
        in_one_thread, in_many: times of calls whose operations run one after the other in the
            calling thread, and of those on TensorFlow's threads.
        is_gathering: its call waits a moment for more requests.
    """

    __slots__ = (
        "_calls_since_try",
        "_company",
        "_has_one_shape",
        "_seen",
        "in_many",
        "in_one_thread",
        "is_gathering",
        "signature",
        "waiting",
        "waiting_rows",
    )

    def __init__(self, signature: Signature):
        self.signature = signature
        self.waiting: deque[Request] = deque()
        self.waiting_rows = 0
        self.in_one_thread, self.in_many = CallTimes(), CallTimes()
        self._company = 1.0  # requests of a call, lately
        self._calls_since_try = 0
        self._seen = 0
        self.is_gathering = False
        shapes = [info.shape for info in signature.inputs.values()]
        self._has_one_shape = all(shape and None not in shape[1:] for shape in shapes)

    def key(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """What inputs must have in common to be called together: the shapes of their rows."""
        if self._has_one_shape:
            return ()
        return tuple(inputs[name].shape[1:] for name in self.signature.inputs)

    def suits_one_thread(self, rows: int) -> bool:
        """Whether such a call is better made in one thread, which costs least."""
        if self.in_many.expected(rows) >= ONE_THREAD_SECONDS:
            return False
        return self.in_one_thread.hoped(rows) <= self.in_many.hoped(rows)

    def learn(self, seconds: float, rows: int, *, in_this_thread: bool) -> None:
        """What a call took."""
        ways = (self.in_one_thread, self.in_many)
        used, other = ways if in_this_thread else reversed(ways)
        used.learn(seconds, rows)
        other.fade()

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.waiting_rows += request.rows

    def is_complete(self, max_rows: int) -> bool:
        """Whether there is no point in waiting for more requests to come."""
        target = max(2, int(1.25 * self._company))
        return self.waiting_rows >= max_rows or (len(self.waiting) >= target and not self._is_try)

    @property
    def _is_try(self) -> bool:
        return self._calls_since_try >= _CALLS_TO_A_TRY

    def pause(self, max_rows: int, now: float, *, timeout_seconds: float) -> float:
        """Seconds that the next call should wait for more requests to come; 0: it should not.

        Where requests have come together lately, a call waits until somewhat more of them are
        here than then, or a pause has brought none, or the time is over. On a busy server that
        costs nobody anything: the loop is at work on the other requests meanwhile.
        """
        waiting, oldest = len(self.waiting), self.waiting[0]
        is_alone = max(waiting, self._company) < _ALONE and not self._is_try
        if oldest.key is None or is_alone or self.is_complete(max_rows) or waiting <= self._seen:
            return 0.0
        self._seen = waiting
        return max(0.0, min(_PAUSE_SECONDS, oldest.arrived + timeout_seconds - now))

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
        self._calls_since_try = 0 if self._is_try else self._calls_since_try + 1
        self._seen = 0
        return taken
