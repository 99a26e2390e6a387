"""The learning-rate range test: a few steps at rising rates, and where the loss has fallen.

    found = range_test(state, step, examples, batch_size=128, seed=0)    # the state is used up
    found.suggestion                          # 0.0023, or None: the loss never fell

Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3. What is
suggested from the curve is decided by plain arithmetic (`suggested_rate`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import OptionsError
from kerastrain.training.executor import Executor
from kerastrain.training.state import TrainState
from kerastrain.training.steps import Batch, StepFunction
from kerastrain.training.stopping.noise import Moments

FIRST_RATE, LAST_RATE = 1e-6, 10.0
# 29 rates in a factor of ten: neighbouring steps differ by 8 %.
STEPS = 200
SMOOTHING = 0.9
# So many times the least smoothed loss, or its start if that is larger, is divergence.
DIVERGED = 4.0
# Of the whole fall of the smoothed loss; chosen together with STEPS and SMOOTHING, since the
# mean lags behind. BUILD_NOTES.md says how, and why not the steepest point.
FALL = 0.7
# A fall of so many standard deviations of the first losses is no chance.
CERTAIN = 2.0


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


def range_test(
    state: TrainState,
    step: StepFunction,
    examples: Examples | StoredExamples,
    *,
    batch_size: int,
    seed: int,
    steps: int = STEPS,
) -> RangeTest:
    """Trains at rates from 1e-6 to 10, evenly in their logarithm, until the loss diverges.

    The state is used up: its weights are spoilt, its optimizer has another learning rate.
    Order and randomness are those of the run's first steps.
    """
    recorded = _LossOf(step, state)
    executor = Executor(state, recorded, examples, batch_size=batch_size, seed=seed)
    optimizer = getattr(state.optimizer, "inner_optimizer", state.optimizer)
    with state.strategy.scope():
        rate = tf.Variable(FIRST_RATE, dtype=tf.float32, trainable=False)
    if hasattr(optimizer, "optimizers"):
        raise OptionsError(
            f"A range test is for one learning rate; a {type(optimizer).__name__} joins several "
            "optimizers with a rate each. Give --learning_rate a number."
        )
    # A variable and no schedule, which counts the optimizer's updates: loss scaling skips some.
    optimizer.learning_rate = lambda: rate
    growth = (LAST_RATE / FIRST_RATE) ** (1 / (steps - 1))
    rates: list[float] = []
    losses: list[float] = []
    for number in range(steps):
        rates.append(FIRST_RATE * growth**number)
        rate.assign(rates[-1])
        executor.run(number, 1, jit=False)
        losses.append(float(recorded.value))
        if has_diverged(losses):
            break
    return RangeTest(tuple(rates), tuple(losses))


class _LossOf:
    """A step function that keeps the loss that another one returns, the replicas' mean."""

    def __init__(self, step: StepFunction, state: TrainState):
        self._step = step
        with state.strategy.scope():
            self.value = tf.Variable(
                0.0,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )

    def __call__(self, state: TrainState, batch: Batch) -> tf.Tensor:
        loss = self._step(state, batch)
        self.value.assign(tf.cast(loss, tf.float32))
        return loss


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
    if means[-1] == math.inf:
        return True
    least, start = min(means), means[0]
    # A loss may begin near 0, or below it: what is looked at is its rise against its fall.
    scale = max(abs(least), start - least)
    return means[-1] > least + (DIVERGED - 1) * scale


def suggested_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Where the smoothed loss has done 70 % of its fall.

    It starts from the median of the first factor of ten, in which nothing is learned yet. A
    fall of less than twice the standard deviation of the losses there is none.

    Returns:
        None when the loss never falls.
    """
    means = smoothed(losses)
    first = sum(rate <= 10 * rates[0] for rate in rates)
    if first < 2 or first == len(means) or not all(map(math.isfinite, means[:first])):
        return None
    start, least = statistics.median(means[:first]), min(means[first:])
    if not start - least > CERTAIN * statistics.stdev(losses[:first]):
        return None
    level = start - FALL * (start - least)
    return round_rate(next(rates[i] for i in range(first, len(means)) if means[i] <= level))


def round_rate(rate: float) -> float:
    """To two digits, which is all that such a test can tell."""
    return float(f"{rate:.1e}")
