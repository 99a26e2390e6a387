"""One run put together: data, model, state, loop, export. `kerastrain.run` is the way in.

    session = Session(job, workdir, starts=starts, signals=signals, process=process)
    result, model = session.run()

Everything that can fail early does so before the first step, and before the record of
the run in the work directory is changed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from kerastrain.data.source import Data
from kerastrain.errors import CheckpointError
from kerastrain.export.fresh_process import FreshProcess
from kerastrain.export.publishing import publish, published_before
from kerastrain.fitting import Fitting, Parts
from kerastrain.inspection import Inspected, Inspection
from kerastrain.job import Job
from kerastrain.options import Interval, checkpoint_interval
from kerastrain.outcome import best_of, explanation, stop_report
from kerastrain.sources import look_again
from kerastrain.training.checkpoint_files import PREFIX, CheckpointFiles
from kerastrain.training.checkpoints import restore_best_weights
from kerastrain.training.executor import Executor
from kerastrain.training.identity import weights_sha256
from kerastrain.training.loop import Ended
from kerastrain.training.plan import Plan, in_steps
from kerastrain.training.rollback import read_rollbacks
from kerastrain.training.signals import Signals
from kerastrain.training.starts import Starts
from kerastrain.training.tuning import Choice, measure
from kerastrain.workdir import Workdir, read_json, strict_json, write_bytes, write_json

logger = logging.getLogger(__name__)

# Of a run whose first start did not measure it.
EXPORT_SECONDS = 10.0


class Session:
    """One start of one run, in a work directory whose lock is held.

    Args:
        process: checks the export before the training, and the one after it, at a run's first
            start.
    """

    def __init__(
        self,
        job: Job,
        workdir: Workdir,
        *,
        starts: Starts,
        signals: Signals,
        process: FreshProcess | None,
    ):
        self.job = job
        self.options = job.options
        self.workdir = workdir
        self.starts = starts
        self.signals = signals
        self.recorded = read_json(workdir.run_file) if workdir.run_file.exists() else None
        self.process = process

    def run(self) -> tuple[dict[str, Any], keras.Model]:
        """Trains to an end and publishes; returns what `result.json` holds, and the model.

        Raises:
            SignalReceived: everything is saved.
            KerastrainError: whatever the user can correct.
        """
        found = self._inspection().run()
        record = self._record(found)
        if self.recorded is None and found.identity["found_learning_rate"] is not None:
            logger.info("Learning rate %g, by a range test.", found.identity["found_learning_rate"])
        choice = self._choose(found, record)
        parts = Parts(
            found.state,
            found.executor,
            found.evaluator,
            found.staging,
            found.measurements,
            choice,
            plan=self._plan(found.executor, choice, record),
            export_seconds=record.get("export_seconds", EXPORT_SECONDS),
            go_on_from=record["ended_at_step"] if self.options.more_epochs else None,
        )
        fitting = Fitting(self.job, self.workdir, parts, starts=self.starts, signals=self.signals)
        self._restore(found, fitting)
        # Nothing stands in the way any more: a finished run that goes on is not finished.
        self.workdir.result_file.unlink(missing_ok=True)
        self.workdir.stopped_file.unlink(missing_ok=True)
        ended = fitting.run()
        self.starts.beat("exporting", step=ended.step)
        return self._finish(found, fitting, ended), found.state.model

    def finished(self) -> keras.Model:
        """The model of a run that has ended, with its best weights; nothing is trained.

        Raises:
            ResumeError: data, model or step are not the run's own; the model is as it was.
            CheckpointError: the best weights are not there any more, or damaged.
        """
        result = read_json(self.workdir.result_file)
        model = self._inspection().same_model(result.get("learning_rate"))
        try:
            restore_best_weights(model, self.workdir.best_checkpoints, result["best"]["step"])
        except CheckpointError as error:
            raise CheckpointError(
                f"The run in {self.workdir} has ended, and its best weights cannot be given to the "
                f"model, which is as it was: {error} The published model is still there: load "
                f"{self.workdir.path / result['export']}, or begin anew with new_version=True."
            ) from error
        return model

    def _restore(self, found: Inspected, fitting: Fitting) -> None:
        """Goes back to the newest checkpoint, and says so if the model brought other weights."""
        given = found.identity["initial_weights"]
        known = [(self.recorded or {}).get("initial_weights", given)]
        if self.workdir.result_file.exists():
            known.append(read_json(self.workdir.result_file).get("weights", given))
        fitting.restore()
        if self._has_checkpoint and given not in (*known, weights_sha256(found.state.model)):
            logger.warning(
                "The model's initial weights are not those that the run began with; they are not "
                "used: the run goes on from its own, of step %s.",
                f"{found.state.step:,}",
            )

    @property
    def _has_checkpoint(self) -> bool:
        return bool(CheckpointFiles(self.workdir.latest_checkpoints).steps())

    def _inspection(self) -> Inspection:
        return Inspection(self.job, self.workdir, self.recorded, process=self.process)

    def dry_run(self) -> list[str]:
        """Everything that comes before the first step; nothing is changed or written.

        Returns:
            A report for people.

        Raises:
            KerastrainError: what would keep the run from training.
        """
        inspection = self._inspection()
        inspection.run()
        if self.recorded is not None:
            inspection.preflight.check("resume", self._check_newest)
        return inspection.preflight.report()

    def _check_newest(self) -> str:
        files = CheckpointFiles(self.workdir.latest_checkpoints)
        newest = max(files.steps(), default=None)
        if newest is None:
            return "no checkpoint yet: from the beginning"
        reason = files.damage(newest)
        return f"from step {newest:,}" + ("" if reason is None else f", which is damaged: {reason}")

    def _record(self, found: Inspected) -> dict[str, Any]:
        """Writes what this run is, at its first start; later ones must be the same run."""
        now: dict[str, Any] = {
            **(self.recorded or {}),
            "given": self.job.given.to_json(),
            "resolved": self.options.to_json(),
        }
        more = self.options.more_epochs
        if more is not None and self.workdir.result_file.exists():
            result = read_json(self.workdir.result_file)
            if result["resolved"]["more_epochs"] != more:
                now["ended_at_step"] = result["step"]
        if self.recorded is None or self.job.override:
            self._write_splits(found.data)
            now |= found.identity
        if not self._has_checkpoint:  # Then it begins, whatever a start that was killed had.
            now["initial_weights"] = found.identity["initial_weights"]
        if self.job.files:
            again = look_again(self.options, self.job.files)
            now["files"] = {**now.get("files", {}), **again}
        if found.export_seconds is not None:
            now["export_seconds"] = found.export_seconds
        if now != self.recorded:
            write_json(self.workdir.run_file, now)
        return now

    def _write_splits(self, data: Data) -> None:
        if data.split_rows:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **data.split_rows)
            write_bytes(self.workdir.splits_file, buffer.getvalue())
        if "schema" in data.description:
            # To be read, edited and given to another run by --schema.
            write_json(self.workdir.schema_file, data.description["schema"])

    def _choose(self, found: Inspected, record: Mapping[str, Any]) -> Choice:
        """How steps are run: as recorded, or measured now and recorded."""
        recorded = self.workdir.executor_file
        choice = Choice.from_json(read_json(recorded)) if recorded.exists() else None
        contradicts = choice is not None and self.options.jit not in ("auto", choice.flag)
        if choice is None or contradicts:  # The latter takes --override, as all differences do.
            total = self._last_step(found.executor, record)
            choice = measure(found.executor, found.state, jit=self.options.jit, total_steps=total)
            write_json(self.workdir.executor_file, choice.to_json())
        logger.info("Steps run %s; examples %s.", choice.reason, found.executor.place.kind)
        return choice

    def _last_step(self, executor: Executor, record: Mapping[str, Any]) -> int:
        per_epoch = executor.batches.steps_per_epoch
        if self.options.more_epochs is not None:
            return record["ended_at_step"] + self.options.more_epochs * per_epoch
        assert self.options.max_epochs is not None  # Resolving has filled it in.
        by_epochs = self.options.max_epochs * per_epoch
        return min(by_epochs, self.options.max_steps or by_epochs)

    def _plan(self, executor: Executor, choice: Choice, record: Mapping[str, Any]) -> Plan:
        per_epoch = executor.batches.steps_per_epoch
        interval = Interval.parse(self.options.evaluate_every, flag="evaluate_every")
        evaluate = in_steps(interval, steps_per_epoch=per_epoch)
        if evaluate is None:
            # By the recorded time of a step, and not by the clock: evaluations decide when to
            # stop, so every start must make them at the same steps.
            evaluate = max(1, round(interval.count / choice.step_seconds))
        saves = checkpoint_interval(self.options)
        return Plan(
            steps_per_epoch=per_epoch,
            evaluate_every=evaluate,
            log_every=choice.log_every,
            last_step=self._last_step(executor, record),
            checkpoint_every=None if saves is None else in_steps(saves, steps_per_epoch=per_epoch),
        )

    def _finish(self, found: Inspected, fitting: Fitting, ended: Ended) -> dict[str, Any]:
        early_stopping = fitting.early_stopping
        history = found.state.host.get("history", [])
        stopped = explanation(ended, early_stopping=early_stopping, options=self.options)
        best = best_of(ended, stopped, early_stopping=early_stopping, history=history)
        logger.info("%s", stopped)
        facts = {
            "recipe": self.job.recipe,
            "options": self.options.to_json(),
            "found_learning_rate": found.identity["found_learning_rate"],
            "step": best["step"],
            "weights": weights_sha256(found.state.model),
            "objective": str(self.job.objective),
            "not_kept": found.identity["not_kept"],
            "best": best,
            "stopped": stopped,
            "data": {
                **found.data.description,
                "fingerprint": found.identity["data_fingerprint"],
            },
        }
        base = self.workdir.exports / self.job.name
        # A run that went on and found nothing better has published this model already.
        identity = {name: facts[name] for name in ("recipe", "best", "data", "weights")}
        published = published_before(base, identity) or publish(
            found.state.model, found.data, base=base, facts=facts, process=self.process
        )
        result = {
            "ended": ended.reason,
            "stopped": stopped,
            "step": ended.step,
            "epoch": fitting.parts.plan.epoch_at(ended.step),
            "best": best,
            "metrics": published.metrics,
            "learning_rate": found.state.learning_rate,
            "weights": facts["weights"],
            "export": str(published.path.relative_to(self.workdir.path)),
            "given": self.job.given.to_json(),
            "resolved": self.options.to_json(),
            "rollbacks": [asdict(rollback) for rollback in read_rollbacks(self.workdir)],
            "history": strict_json(history),
        }
        weights = self.workdir.best_checkpoints / f"{PREFIX}-{best['step']}"
        write_json(
            self.workdir.stopped_file,
            stop_report(
                ended,
                stopped,
                best,
                early_stopping=early_stopping,
                weights=str(weights.relative_to(self.workdir.path)),
            ),
        )
        write_json(self.workdir.result_file, result)
        return result
