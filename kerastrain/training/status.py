"""RunStatus: where the run is, for whatever displays or records it.

The loop passes one RunStatus to every callback as `self.params["run"]` and
keeps it up to date. Under `model.fit` there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import Evaluation, Reading


@dataclass(frozen=True)
class Save:
    """One save: at which step, and for how many seconds it held the training up."""

    step: int
    blocking_seconds: float


@dataclass
class RunStatus:
    """Updated by the loop before it calls the callbacks.

    Attributes:
        step: optimizer steps done since the run's first start (the global step).
        last_step: the step at which the run ends if nothing stops it earlier.
        steps_per_epoch: steps in one pass over the training examples.
        epoch: passes over the training examples, fractional (2.5: in the middle of the third).
        max_epochs: the epoch at which the run ends if nothing stops it earlier.
        seconds: training and evaluating so far, earlier starts of the run included.
        examples_per_second: of the training steps alone, since the last log point.
        learning_rate: the optimizer's, now.
        is_log_point: whether this step is one that the logs record. Log points
            lie at fixed steps, so an interrupted run records the same ones.
        best: the best value of the objective so far, None before the first.
        best_step: the step of `best`.
        evaluations: of the whole run, without one that callbacks are just told of.
        readings: of the stopping criteria at the latest evaluation.
        saves: those that nobody has recorded yet; whoever does takes them away.
    """

    objective: Objective | None
    step: int = 0
    last_step: int = 0
    steps_per_epoch: int = 1
    epoch: float = 0.0
    max_epochs: float = 0.0
    seconds: float = 0.0
    examples_per_second: float = 0.0
    learning_rate: float = 0.0
    is_log_point: bool = False
    best: float | None = None
    best_step: int | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    readings: tuple[Reading, ...] = ()
    saves: list[Save] = field(default_factory=list)
