"""Before the first step: data and model are made, and everything about them is checked.

    found = Inspection(job, workdir, recorded, process=process).run()
    found.state, found.executor, found.evaluator

At the first start of a run all checks are made; at a later one those that say whether it is
still the same run. Nothing is written into the work directory.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerastrain.assembly import Assembly
from kerastrain.callbacks.measurements import measurements_for
from kerastrain.data.source import Data, joined_fingerprint
from kerastrain.export.fresh_process import FreshProcess
from kerastrain.export.publishing import Rehearsal
from kerastrain.job import Job
from kerastrain.options import AUTO
from kerastrain.preflight import (
    Preflight,
    check_callbacks,
    check_disk,
    check_finite,
    check_ids,
    check_labels,
    check_objective,
    check_round_trip,
    check_rule,
    check_state,
    check_steps,
)
from kerastrain.training.callback_settings import callback_settings, setting_differences
from kerastrain.training.environment import (
    environment_differences,
)
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Executor
from kerastrain.training.identity import (
    describe_code,
    describe_model,
    differing,
    is_other_code,
    model_differences,
    weights_sha256,
)
from kerastrain.training.retention import Retention
from kerastrain.training.staging import Staging
from kerastrain.training.state import TrainState
from kerastrain.training.tuning import Choice
from kerastrain.workdir import Workdir, read_json, refuse_differences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspected:
    """Data and a model, ready to be trained, and what was found out about them.

    Attributes:
        measurements: callbacks that report what the stopping rule needs besides metrics.
        identity: what may not differ between the starts of a run, for its record.
        export_seconds: of an export, its fresh process included: an upper bound. None at
            later starts.
    """

    data: Data
    state: TrainState
    executor: Executor
    evaluator: Evaluator | None
    staging: Staging
    measurements: Sequence[keras.callbacks.Callback]
    identity: Mapping[str, Any]
    export_seconds: float | None


class Inspection:
    """Of one start of one run.

    Args:
        recorded: what the run's first start recorded of it; None: this is the first.
        process: checks the export; None at later starts, where that is known to work.
    """

    def __init__(
        self,
        job: Job,
        workdir: Workdir,
        recorded: Mapping[str, Any] | None,
        *,
        process: FreshProcess | None,
    ):
        self.job = job
        self.process = process
        self.options = job.options
        self.workdir = workdir
        self.recorded = recorded
        self.preflight = Preflight()
        self.not_kept: list[str] = []
        self._range_test_seconds = 0.0
        self.assembly = Assembly(job, None if recorded is None else recorded["environment"])

    def run(self) -> Inspected:
        """Makes data and model and checks them.

        Raises:
            KerastrainError: the run could not be trained, or is not the recorded one.
        """
        assembly = self.assembly
        data = self._load_data()
        self._settle_learning_rate(data)
        state = assembly.state(data)
        self._check_environment()
        self._warn_of_another_rate(state)
        executor, evaluator = assembly.executor(state, data), assembly.evaluator(state, data)
        self._check_run(state, data, executor, evaluator)
        staging = Staging(state)
        measurements = measurements_for(
            self.job.stop_rule,
            train=data.train,
            validation=assembly.validation(data),
            batch_size=executor.batches.batch_size,
            seed=self.options.seed,
        )
        if self.process is not None:
            size = executor.batches.batch_size
            with Rehearsal(state.model, data, self.process, batch_size=size) as rehearsal:
                self._check_training(state, executor, evaluator, staging)
                self.preflight.check("export", rehearsal.finish)
        return Inspected(
            data=data,
            state=state,
            executor=executor,
            evaluator=evaluator,
            staging=staging,
            measurements=measurements,
            identity={
                "recipe": self.job.recipe,
                "recipe_sha256": self.job.recipe_sha256,
                "data": dict(data.description),
                "data_fingerprint": self.fingerprint,
                "splits": self.splits,
                "environment": assembly.environment,
                "found_learning_rate": assembly.found_rate,
                "not_kept": self.not_kept,
                "model": self.described,
                "callbacks": callback_settings(self.job.callbacks),
                "step": describe_code(self.job.step),
                "initial_weights": weights_sha256(state.model),
            },
            export_seconds=self._export_seconds(),
        )

    def same_model(self, rate_at_end: float | None) -> keras.Model:
        """The job's model, built, and as the run's first start had it; nothing else is looked at.

        Raises:
            ResumeError: the data or the model are not the recorded run's.
        """
        model = self.assembly.state(self._load_data()).model
        self._check_model(model, rate_at_end)
        return model

    def _export_seconds(self) -> float | None:
        """Of all that an export takes as well: everything but the range test."""
        if self.process is None:
            return None
        return time.monotonic() - self.process.began - self._range_test_seconds

    def _check_environment(self) -> None:
        if self.recorded is not None:
            before, now = self.recorded["environment"], self.assembly.environment
            self._refuse("was trained in another environment", environment_differences(before, now))

    def _load_data(self) -> Data:
        data = self.assembly.load_data()
        fingerprints = data.split_fingerprints()
        self.fingerprint = joined_fingerprint(fingerprints)
        self.splits = {
            name: f"{len(split):,} rows of sha256 {fingerprints[name][:12]}"
            for name in fingerprints
            if (split := getattr(data, name)) is not None
        }
        if self.recorded is not None and self.recorded["data_fingerprint"] != self.fingerprint:
            before = self.recorded.get("splits", {})
            differences = differing(before, self.splits) or ["the data's fingerprint differs"]
            self._refuse("was trained on other data", differences)
        return data

    def _settle_learning_rate(self, data: Data) -> None:
        """Where it is to be found: as the run's first start found it, or by a range test now."""
        if self.options.learning_rate != AUTO:
            return
        rate = (self.recorded or {}).get("found_learning_rate")
        if rate is None:
            self.preflight.check("learning rate", lambda: self._find_learning_rate(data))
        else:
            self.assembly.take_rate(rate)

    def _warn_of_another_rate(self, state: TrainState) -> None:
        found, begins = self.assembly.found_rate, state.learning_rate
        if found is None or self.options.schedule is not None:
            return
        if not math.isclose(begins, found, rel_tol=1e-3):
            logger.warning(
                "The recipe's optimizer begins with a learning rate of %g, and not of the %g that "
                "was found; does build_model use options.learning_rate?",
                begins,
                found,
            )

    def _find_learning_rate(self, data: Data) -> str:
        began, test = time.monotonic(), self.assembly.range_test(data)
        rate = test.suggestion
        assert rate is not None  # It is an error otherwise.
        self.assembly.take_rate(rate)
        self._range_test_seconds = time.monotonic() - began
        return f"{rate:g}, by a range test of {len(test.rates)} steps"

    def _refuse(self, what: str, differences: list[str]) -> None:
        refuse_differences(self.workdir, what, differences, override=self.job.override)

    def _check_run(
        self, state: TrainState, data: Data, executor: Executor, evaluator: Evaluator | None
    ) -> None:
        """What is checked at every start."""
        check, model = self.preflight.check, state.model
        check("objective", lambda: check_objective(self.job.objective, model, data))
        check("stop", lambda: check_rule(self.job.stop_rule, self.job.objective, state, data))
        check("callbacks", lambda: check_callbacks(self.job.callbacks))
        check("labels", lambda: check_labels(model, data))
        check("state", lambda: self._check_state(state, executor, evaluator))
        check("ids", lambda: check_ids(state, data))
        check("data", lambda: check_finite(state, self.assembly.step(model), data))
        self._check_model(model)

    def _check_model(self, model: keras.Model, rate_at_end: float | None = None) -> None:
        self.described = describe_model(model)
        if self.recorded is None:
            return
        before = self.recorded["model"]
        differences = model_differences(before, self.described, rate_at_end=rate_at_end)
        self._refuse("trains another model", differences)
        step = describe_code(self.job.step)
        if is_other_code(self.recorded.get("step", step), step):
            self._refuse(
                "trains by another step", ["its code, or a value that it uses, was changed"]
            )
        if "callbacks" in self.recorded:
            differences = setting_differences(self.recorded["callbacks"], self.job.callbacks)
            self._refuse("has other callbacks", differences)

    def _check_state(
        self, state: TrainState, executor: Executor, evaluator: Evaluator | None
    ) -> str:
        recorded = self.workdir.executor_file
        jit = recorded.exists() and Choice.from_json(read_json(recorded)).jit
        self.not_kept = check_state(
            state,
            executor.trace(jit=jit),
            None if evaluator is None else evaluator.trace(),
            inexact=self.options.inexact_resume,
        )
        return f"{len(state.describe())} variables are kept"

    def _check_training(
        self,
        state: TrainState,
        executor: Executor,
        evaluator: Evaluator | None,
        staging: Staging,
    ) -> None:
        """What is checked at the first start, and cannot change."""
        check, folder = self.preflight.check, self.workdir.path
        check("disk", lambda: self._check_disk(state))
        check("steps", lambda: check_steps(executor, evaluator, state))
        check("checkpoint", lambda: check_round_trip(staging, state, folder))

    def _check_disk(self, state: TrainState) -> str:
        keeps = Retention.of(self.options, self.job.objective)
        return check_disk(
            self.workdir.path,
            state_bytes=sum(value.nbytes for value in state.snapshot()),
            weight_bytes=sum(variable.numpy().nbytes for variable in state.trainable_values),
            checkpoints=keeps.last + keeps.best + 1,  # One from before the best weights.
        )
