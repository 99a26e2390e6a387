"""When to stop: criteria as pure functions of recorded numbers, without TensorFlow.

    rule = Patience(5) | Target(0.995) | Budget(seconds=600)
    rule = parse_criterion("gl(2) and after(epochs=3)")
    verdicts = list(rule.verdicts(evaluations, objective))

`kerastrain.EarlyStopping(stop=rule)` wires a criterion into `fit` and into the loop;
`kerastrain replay` runs any of them over what finished runs have recorded.
"""

from kerastrain.training.stopping.criterion import (
    AllOf,
    AnyOf,
    Criterion,
    Evaluation,
    Reading,
    Verdict,
    Watch,
)
from kerastrain.training.stopping.evidence import Evidence
from kerastrain.training.stopping.named import CRITERIA, parse_criterion
from kerastrain.training.stopping.noise import Divergence, Plateau, Significance, Smoothed
from kerastrain.training.stopping.patience import Patience
from kerastrain.training.stopping.prechelt import GL, PQ, UP, Progress
from kerastrain.training.stopping.progress import StoppingProgress
from kerastrain.training.stopping.reached import After, Baseline, Budget, Never, Target
from kerastrain.training.stopping.recorded import (
    evaluation_of,
    evaluations_of,
    read_evaluations,
    record_of,
)
from kerastrain.training.stopping.replay import Outcome, outcome

__all__ = [
    "CRITERIA",
    "GL",
    "PQ",
    "UP",
    "After",
    "AllOf",
    "AnyOf",
    "Baseline",
    "Budget",
    "Criterion",
    "Divergence",
    "Evaluation",
    "Evidence",
    "Never",
    "Outcome",
    "Patience",
    "Plateau",
    "Progress",
    "Reading",
    "Significance",
    "Smoothed",
    "StoppingProgress",
    "Target",
    "Verdict",
    "Watch",
    "evaluation_of",
    "evaluations_of",
    "outcome",
    "parse_criterion",
    "read_evaluations",
    "record_of",
]
