"""How steps are best run on this machine: measured once, remembered for the whole run.

    choice = measure(executor, state, total_steps=8600)
    choice.jit            # True: XLA was faster
    choice.log_every      # steps between log points, about ten seconds of training

XLA makes small dense networks three times faster on a CPU and convolutions ten
times slower, and changes the bytes of the result. So it is timed on the user's
own model, from a snapshot that is put back afterwards, and the choice is kept
in the work directory for every later start of the run.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerastrain.errors import KerastrainError, OptionsError
from kerastrain.training.evaluation import COMPILE_ERRORS
from kerastrain.training.executor import Executor
from kerastrain.training.state import TrainState

logger = logging.getLogger(__name__)

# Compiling with XLA takes seconds; a run shorter than this is over before it pays.
SHORT_RUN_SECONDS = 3.0
# How long each way is timed at a time, after its first call; and how many times, in turn.
TIMING_SECONDS = 0.15
ROUNDS = 3
HOPELESS = 4.0
LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Choice:
    """How the steps of a run are run.

    Attributes:
        jit: compiled by XLA.
        log_every: steps between log points.
        step_seconds: measured time of a step.
        reason: one line for people.
    """

    jit: bool
    log_every: int
    step_seconds: float
    reason: str

    @property
    def flag(self) -> str:
        """The value of --jit that says the same."""
        return "on" if self.jit else "off"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        return cls(**values)


def measure(executor: Executor, state: TrainState, *, jit: str, total_steps: int) -> Choice:
    """Times the ways to run a step and chooses; state and metrics are as before afterwards.

    Args:
        jit: "auto" measures; "on" and "off" decide, and only the step's time is measured.
        total_steps: of the whole run, to see whether compiling pays.

    Raises:
        OptionsError: XLA was asked for and cannot compile the step.
    """
    if jit == "on" and state.replicas > 1:
        raise OptionsError(
            f"--jit=on does not work over {state.replicas} replicas; use --jit=auto or off, "
            "or --strategy=one_device."
        )
    before = state.snapshot()
    try:
        return _chosen(executor, state, jit=jit, total_steps=total_steps)
    finally:
        state.assign(before)


def _chosen(executor: Executor, state: TrainState, *, jit: str, total_steps: int) -> Choice:
    if jit == "on":
        return _choice(True, _timed_or_refused(executor), "XLA, as asked for")
    plain = _step_seconds(executor, jit=False)
    if jit == "off":
        return _choice(False, plain, "without XLA, as asked for")
    if state.replicas > 1:
        return _choice(False, plain, f"without XLA, over {state.replicas} replicas")
    if plain * total_steps < SHORT_RUN_SECONDS:
        return _choice(False, plain, "without XLA: the run is shorter than compiling would take")
    try:
        compiled = _step_seconds(executor, jit=True)
    except COMPILE_ERRORS as error:
        logger.debug("XLA cannot compile the step: %s", error)
        return _choice(False, plain, "without XLA, which cannot compile this model's step")
    # In turn, and the best of each: the machine's speed drifts while we measure. What is
    # slower beyond any drift is not timed again: a convolution under XLA takes seconds.
    for _ in range(ROUNDS - 1 if compiled < HOPELESS * plain else 0):
        plain = min(plain, _timed_again(executor, plain, jit=False))
        compiled = min(compiled, _timed_again(executor, compiled, jit=True))
    timings = f"{_milliseconds(compiled)} with XLA, {_milliseconds(plain)} without"
    faster = compiled < plain
    ratio = max(plain, compiled) / min(plain, compiled)
    name = "XLA" if faster else "without XLA"
    return _choice(faster, min(plain, compiled), f"{name}, {ratio:.1f} times faster ({timings})")


def _choice(jit: bool, step_seconds: float, reason: str) -> Choice:
    return Choice(jit, _round_number(LOG_SECONDS / step_seconds), step_seconds, reason)


def _timed_or_refused(executor: Executor) -> float:
    try:
        return _step_seconds(executor, jit=True)
    except KerastrainError:
        raise
    except COMPILE_ERRORS as error:
        first_line = str(error).strip().splitlines()[0]
        raise OptionsError(
            f"--jit=on: XLA cannot compile this model's step: {first_line} Use --jit=off."
        ) from error


def _step_seconds(executor: Executor, *, jit: bool) -> float:
    """The time of one full step, compiled before it is timed."""
    executor.run(0, 1, jit=jit)
    steps, most = 1, _full_steps(executor)
    while True:
        spent = _seconds(executor, steps, jit=jit)
        if steps == most or spent >= TIMING_SECONDS:
            return spent / steps
        # Towards the time wanted, but not by more than a factor that a slow first call allows.
        growth = min(10.0, max(2.0, TIMING_SECONDS / max(spent, 1e-6)))
        steps = min(most, int(steps * growth))


def _timed_again(executor: Executor, step_seconds: float, *, jit: bool) -> float:
    """The time of one full step, now that it is known how many take long enough."""
    steps = min(_full_steps(executor), math.ceil(TIMING_SECONDS / step_seconds))
    return _seconds(executor, steps, jit=jit) / steps


def _full_steps(executor: Executor) -> int:
    """Of an epoch."""
    return executor.batches.examples // executor.batches.batch_size


def _seconds(executor: Executor, steps: int, *, jit: bool) -> float:
    began = time.perf_counter()
    executor.run(0, steps, jit=jit)
    return time.perf_counter() - began


def _round_number(steps: float) -> int:
    """The nearest 1, 2 or 5 times a power of ten below: 0.7 -> 1, 437 -> 200."""
    size = 1
    while size * 10 <= steps:
        size *= 10
    return max(1, max(f * size for f in (1, 2, 5) if f * size <= max(steps, 1)))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms a step"
