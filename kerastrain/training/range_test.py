"""The learning-rate range test: a few steps at rising rates, and where the loss falls fastest.

    found = range_test(executor, state)       # of a model that is thrown away afterwards
    found.suggestion                          # 0.0023, or None: the loss never fell

Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3. What is
suggested from the curve is decided by plain arithmetic (`suggested_rate`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kerastrain.training.executor import Executor
from kerastrain.training.state import TrainState
from kerastrain.training.stopping.noise import Moments

FIRST_RATE, LAST_RATE = 1e-6, 10.0
# 29 rates in a factor of ten: neighbouring steps differ by 8 %.
STEPS = 200
SMOOTHING = 0.9
# To each side of a rate, in decades.
WINDOW = 1 / 3
# So many times the least smoothed loss, or its start if that is larger, is divergence.
DIVERGED = 4.0


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: of each step, rising.
        losses: of each step's batch; the last one may be infinite or NaN.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> tuple[float, ...]:
        """The losses as an exponential mean, without bias to the beginning."""
        return tuple(smoothed(self.losses))

    @property
    def suggestion(self) -> float | None:
        return suggested_rate(self.rates, self.losses)


def range_test(executor: Executor, state: TrainState, *, steps: int = STEPS) -> RangeTest:
    """Trains at rates from 1e-6 to 10, evenly in their logarithm, until the loss diverges.

    The state is used up: its weights are spoilt and its optimizer has another schedule. Order
    and randomness are those of the run's first steps.
    """
    growth = (LAST_RATE / FIRST_RATE) ** (1 / (steps - 1))
    optimizer = getattr(state.optimizer, "inner_optimizer", state.optimizer)
    optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(FIRST_RATE, 1, growth)
    rates: list[float] = []
    losses: list[float] = []
    for step in range(steps):
        state.model.reset_metrics()
        executor.run(step, 1, jit=False)
        rates.append(FIRST_RATE * growth**step)
        losses.append(float(state.model.get_metrics_result()["loss"]))
        if has_diverged(losses):
            break
    state.model.reset_metrics()
    return RangeTest(tuple(rates), tuple(losses))


def smoothed(losses: Sequence[float]) -> list[float]:
    """An exponential mean; from the first loss that is not finite on, infinite."""
    moments = Moments(SMOOTHING)
    means: list[float] = []
    for loss in losses:
        if not math.isfinite(loss) or (means and means[-1] == math.inf):
            means.append(math.inf)
            continue
        moments.add(loss)
        means.append(moments.mean)
    return means


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the last smoothed loss is beyond anything that training recovers from."""
    means = smoothed(losses)
    least, start = min(means), means[0]
    # A loss may begin near 0, or below it: what is looked at is its rise against its fall.
    scale = max(abs(least), start - least)
    return means[-1] > least + (DIVERGED - 1) * scale


def suggested_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Where the loss falls fastest, but from a tenth to a third of the rate of the least loss.

    "Fastest" is the steepest straight line through the losses within a third of a decade to
    each side, over the logarithm of the rate, up to the least smoothed loss. Smith (2017)
    reads this off by eye; a tenth of the least loss's rate is the rule of thumb of Howard &
    Gugger (2020), "fastai", section 4.1, and the steepest point that library's other one. Why both
    together: BUILD_NOTES.md.

    Returns:
        None when the loss never falls.
    """
    means = smoothed(losses)
    least = means.index(min(means))
    if least == 0 or means[least] >= means[0]:
        return None
    steepest = _steepest(rates, losses[: least + 1])
    highest = rates[least]
    bounded = min(max(steepest or 0.0, highest / 10), highest / 3)
    return round_rate(bounded)


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate around which the losses fall fastest; None where no window of rates fits."""
    logs = [math.log10(rate) for rate in rates[: len(losses)]]
    best, steepest = None, 0.0
    for i, centre in enumerate(logs):
        window = [j for j, log in enumerate(logs) if abs(log - centre) <= WINDOW]
        is_whole = window[0] > 0 and window[-1] < len(losses) - 1
        if not is_whole:
            continue
        slope = statistics.linear_regression(
            [logs[j] for j in window], [losses[j] for j in window]
        ).slope
        if slope < steepest:
            best, steepest = rates[i], slope
    return best


def round_rate(rate: float) -> float:
    """To two digits, which is all that such a test can tell."""
    return float(f"{rate:.1e}")
