"""How often to save: often enough that little is lost, seldom enough that it costs little.

    cadence = Cadence(mean_seconds_between_interruptions=14_400)
    cadence.saved(blocking_seconds=0.02, writing_seconds=0.3, now=time.monotonic())
    cadence.is_due(now=time.monotonic())

Sources: Young (1974), A first order approximation to the optimum checkpoint interval,
CACM 17(9); Daly (2006), A higher order estimate of the optimum checkpoint interval for
restart dumps, Future Generation Computer Systems 22(3).
"""

from __future__ import annotations

import math
import statistics
from collections import deque

# What is assumed of a machine of which nothing is known yet.
PRIOR_SECONDS = 4 * 3600.0
# Saving may hold the training up for at most this share of the time.
LARGEST_OVERHEAD = 0.02
# The cost of a save is the median of this many: the first one is slower.
REMEMBERED_SAVES = 5


def young_interval(cost: float, mean_between: float) -> float:
    """Young (1974): √(2δM), the time between saves that loses the least, to first order.

    Args:
        cost: δ, seconds that a save holds the training up.
        mean_between: M, mean seconds between interruptions.
    """
    return math.sqrt(2 * cost * mean_between)


def daly_interval(cost: float, mean_between: float) -> float:
    """Daly (2006), eq. 37: √(2δM)·[1 + ⅓·√(δ/2M) + (1/9)·(δ/2M)] − δ for δ < 2M, else M.

    Args:
        cost: δ, seconds that a save holds the training up.
        mean_between: M, mean seconds between interruptions.

    Returns:
        Seconds of training between the end of a save and the beginning of the next.
    """
    if cost >= 2 * mean_between:
        return mean_between
    ratio = cost / (2 * mean_between)
    return young_interval(cost, mean_between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def mean_seconds_between(*, interruptions: int, seconds: float) -> float:
    """Mean time between interruptions, after some of them in `seconds` of running.

    One over the posterior mean of an exponential distribution's rate, with a prior worth
    one interruption in PRIOR_SECONDS: with no record it is the prior, and every
    interruption, and every hour without one, moves it.
    """
    return (PRIOR_SECONDS + seconds) / (1 + interruptions)


def save_interval(*, blocking: float, writing: float, mean_between: float) -> float:
    """Seconds between saves: Daly's, but under the largest overhead, and over one write.

    Args:
        blocking: seconds that a save holds the training up.
        writing: seconds that it takes until it is on the disk, beside the training.
    """
    return max(daly_interval(blocking, mean_between), least_interval(blocking, writing))


def least_interval(blocking: float, writing: float) -> float:
    """The shortest time between saves that keeps to the overhead and lets a write finish."""
    return max(blocking * (1 / LARGEST_OVERHEAD - 1), writing)


class Cadence:
    """When the next save is due, by the clock.

    Args:
        mean_seconds_between_interruptions: of this run, as `mean_seconds_between` gives it.
        fixed_seconds: the user's own interval; None: it follows from the measured costs.
    """

    def __init__(
        self, *, mean_seconds_between_interruptions: float, fixed_seconds: float | None = None
    ):
        self._mean_between = mean_seconds_between_interruptions
        self._fixed = fixed_seconds
        self._blocking: deque[float] = deque(maxlen=REMEMBERED_SAVES)
        self._writing: deque[float] = deque(maxlen=REMEMBERED_SAVES)
        self._last = -math.inf

    def saved(self, *, blocking_seconds: float, writing_seconds: float | None, now: float) -> None:
        """Notes a save that ended at `now` (seconds of a monotonic clock).

        Args:
            writing_seconds: what the newest finished write took; None: none has finished.
        """
        self._blocking.append(blocking_seconds)
        if writing_seconds is not None:
            self._writing.append(writing_seconds)
        self._last = now

    @property
    def interval(self) -> float:
        """Seconds between saves, as of now."""
        if self._fixed is not None:
            return self._fixed
        blocking, writing = self._costs()
        return save_interval(blocking=blocking, writing=writing, mean_between=self._mean_between)

    def is_due(self, now: float) -> bool:
        """Whether the interval is over; before the first save of all it is, unless infinite."""
        return self.interval < math.inf and now - self._last >= self.interval

    def is_affordable(self, now: float) -> bool:
        """Whether a save beyond those that are due keeps to the largest overhead."""
        return now - self._last >= least_interval(*self._costs())

    def _costs(self) -> tuple[float, float]:
        blocking = statistics.median(self._blocking) if self._blocking else 0.0
        return blocking, max(self._writing, default=0.0)
