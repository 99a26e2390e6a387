"""Job: what to train, whether it comes from a recipe or from a program.

job = Job(name="digits", given=options, options=resolved, load_data=…, build_model=…)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerastrain.data.source import Data
from kerastrain.objective import Objective
from kerastrain.options import TrainOptions
from kerastrain.training.steps import StepFunction
from kerastrain.training.stopping import Criterion, parse_criterion

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Job:
    """What to train, whether it comes from a recipe or from a program.

    Attributes:
        name: of the export.
        given, options: as the user said, and with all defaults filled in.
        rule: when to stop, from a program; None: as the options say.
        recipe: name or path, None for a program's own model.
        files: that data and recipe are in (`kerastrain.sources`), as this start found them.
        new_version: a run that differs is set aside, and a new one begins.
    """

    name: str
    given: TrainOptions
    options: TrainOptions
    load_data: Callable[[], Data]
    build_model: Callable[[TrainOptions, Data], keras.Model]
    step: StepFunction | None = None
    recipe: str | None = None
    recipe_sha256: str | None = None
    rule: Criterion | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1
    override: bool = False
    files: Mapping[str, Any] = field(default_factory=dict)
    new_version: bool = False

    @property
    def objective(self) -> Objective:
        return Objective.parse(self.options.objective or "val_loss")

    @property
    def stop_rule(self) -> Criterion:
        return self.rule or parse_criterion(self.options.stop_rule)
