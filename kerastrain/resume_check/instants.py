"""When a training is killed: random instants, so dealt out that every phase gets some.

    timeline = Timeline(starting=6.1, training=20.3, exporting=4.2)
    instant = choose_instant(random.Random(0), timeline, saves=15)
    instant.is_due({"starting": 100.0, "training": 106.2}, now=109.5)

Instants that were equally likely all along the clock would mostly fall into starts: each
of them takes seconds before it trains.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# What a start of a run reaches, one after the other: its process runs; it has made steps;
# it has saved some; all are made, and the model is exported.
Phase = Literal["starting", "training", "saved", "exporting"]

# Of all kills, so many come so long after a start has reached a phase. After most the run
# has got on a little: a start needs time to trace its functions before it is fast.
SHARES: Mapping[Phase, float] = {"starting": 15, "training": 15, "saved": 60, "exporting": 10}
# Saves in the killed training, if the user does not say how often: some work is always lost.
SAVES = 15
SHORTEST_INTERVAL_SECONDS = 0.05
# A run is cut into about so many starts, if it saves often enough to get on between them.
MOST_STARTS = 6.0
STARTS_PER_SAVE = 0.4
# More than the average share: a start that is killed repeats what it had not saved.
LONGEST_SHARE = 1.5


@dataclass(frozen=True)
class Timeline:
    """How long the undisturbed run took, in seconds.

    Attributes:
        starting: from the start of the process until steps were made.
        training: from there until everything was trained.
        exporting: from there until the process had ended.
    """

    starting: float
    training: float
    exporting: float

    @classmethod
    def measured(cls, reached: Mapping[str, float], *, ended: float) -> Timeline:
        """
        Args:
            reached: when each phase was first seen; "starting" at least.
            ended: when the process was, by the same clock.
        """
        exporting = reached.get("exporting", ended)
        training = min(exporting, reached.get("training", exporting))
        return cls(training - reached["starting"], exporting - training, ended - exporting)

    @property
    def total(self) -> float:
        return self.starting + self.training + self.exporting

    @property
    def save_interval(self) -> float:
        """Seconds between saves that make about SAVES of them."""
        return max(SHORTEST_INTERVAL_SECONDS, self.training / SAVES)


@dataclass(frozen=True)
class Instant:
    """When a start is killed: `seconds` after it was first seen in `phase`.

    One in training that comes when the training is over comes too late: the run ends.
    """

    phase: Phase
    seconds: float

    def is_due(self, reached: Mapping[str, float], *, now: float) -> bool:
        """
        Args:
            reached: when each phase was first seen, by the same clock as `now`.
        """
        if self.phase in ("training", "saved") and "exporting" in reached:
            return False
        return self.phase in reached and now - reached[self.phase] >= self.seconds


def choose_instant(rng: random.Random, timeline: Timeline, *, saves: float) -> Instant:
    """A random instant.

    Args:
        saves: how many saves the whole training makes. Most starts must train for longer
            than is between two of them, or the run would never get on.
    """
    (phase,) = rng.choices(list(SHARES), weights=list(SHARES.values()))
    starts = min(MOST_STARTS, max(1.0, STARTS_PER_SAVE * saves))
    longest = {"starting": timeline.starting, "exporting": timeline.exporting}.get(
        phase, LONGEST_SHARE * timeline.training / starts
    )
    return Instant(phase, rng.uniform(0, longest))
