"""Plan: at which steps something happens; plain arithmetic on global steps.

plan = Plan(steps_per_epoch=430, evaluate_every=430, log_every=100, last_step=8600)
plan.next_stop(step=400)     # 430: the nearest evaluation, log point, checkpoint or end
"""

from __future__ import annotations

from dataclasses import dataclass

from kerastrain.options import Interval


@dataclass(frozen=True)
class Plan:
    """All in optimizer steps since the run's first start.

    Attributes:
        steps_per_epoch: one pass over the training examples.
        evaluate_every: a round; it ends with an evaluation.
        log_every: between two log points; fixed for the whole run, so that an
            interrupted run logs at the same steps.
        last_step: the run ends here at the latest.
        checkpoint_every: None when checkpoints go by the clock.
    """

    steps_per_epoch: int
    evaluate_every: int
    log_every: int
    last_step: int
    checkpoint_every: int | None = None

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which something is due."""
        periods = [self.evaluate_every, self.log_every]
        if self.checkpoint_every:
            periods.append(self.checkpoint_every)
        return min(self.last_step, *((step // period + 1) * period for period in periods))

    def ends_round(self, step: int) -> bool:
        """Whether an evaluation is due after this step."""
        return step % self.evaluate_every == 0 or step >= self.last_step

    def is_log_point(self, step: int) -> bool:
        return step % self.log_every == 0

    def is_checkpoint(self, step: int) -> bool:
        return bool(self.checkpoint_every) and step % (self.checkpoint_every or 1) == 0

    def round_of(self, step: int) -> int:
        """The 0-based number of the round that the step after `step` belongs to."""
        return step // self.evaluate_every

    def epoch_at(self, step: int) -> float:
        return step / self.steps_per_epoch


def in_steps(interval: Interval, *, steps_per_epoch: int) -> int | None:
    """An interval in steps; None for one that goes by the clock."""
    if interval.unit == "seconds":
        return None
    return int(interval.count) * (steps_per_epoch if interval.unit == "epochs" else 1)
