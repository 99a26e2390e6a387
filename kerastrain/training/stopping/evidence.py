"""The evidence-based criterion, which needs no validation set; for plain SGD.

Evidence()                           # --stop=evidence
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import Criterion, Evaluation, Verdict

EVIDENCE = "evidence"


@dataclass(frozen=True)
class Evidence(Criterion):
    """Stop when the gradient is no longer told from noise. Derived for plain SGD only.

    Mahsereci, Balles, Lassner & Hennig (2017), "Early Stopping without a Validation Set",
    eq. 7: stop when 1 - (B / D) · sum_k g_k² / S_k > 0, with g the gradient of the loss on a
    batch of B examples, S its elements' variance over single examples, and D the number of
    elements. The run measures the left side on training batches
    (`kerastrain.callbacks.measurements`) and records it as `evidence`.

    Gradients of single evaluations are noisy: smoothed(evidence, beta=0.7) is steadier.
    """

    name = "evidence"

    def metrics(self, objective: Objective) -> frozenset[str]:
        return frozenset({EVIDENCE})

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        for evaluation in evaluations:
            value = evaluation.value(EVIDENCE)
            says = f"the evidence that the gradient is only noise was {value:.3g} (limit 0)"
            yield self._verdict(0 < value < math.inf, says, value, 0.0)
