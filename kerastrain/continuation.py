"""Whether a command goes on with the run in its work directory, has it finished, or is refused.

    recorded = recorded_run(workdir)          # None: no run was begun here
    check_same_run(job, workdir, recorded)    # ResumeError: what is learned would differ
    is_to_go_on(job, workdir, result)         # a finished run was given more of what it lacked

What is learned may not differ. Budgets may; and when to stop may be said anew, as long as the
run is not beyond the step where that rule would have stopped it: its record decides.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kerastrain.errors import OptionsError, WorkdirError
from kerastrain.options import LOCATIONS, TABLE_LOCATIONS, TrainOptions
from kerastrain.recipe import locate_recipe, source_sha256
from kerastrain.sources import RECIPE, Files, differences, has_same_content
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.training.stopping import Outcome, outcome, parse_criterion, read_evaluations
from kerastrain.workdir import Workdir, read_json, refuse_differences

if TYPE_CHECKING:
    from kerastrain.job import Job

logger = logging.getLogger(__name__)


def recorded_run(workdir: Workdir) -> dict[str, Any] | None:
    """What `run.json` says of the run begun here, None when there is none."""
    try:
        if not workdir.run_file.exists():
            return None
    except OSError as error:  # A name that is too long, a folder that may not be entered.
        raise WorkdirError(
            f"--workdir={workdir.path} cannot be looked into: {error.strerror}. Use another."
        ) from error
    recorded = read_json(workdir.run_file)
    needed = {"given", "resolved", "recipe_sha256", "data_fingerprint", "environment", "model"}
    missing = needed - set(recorded)
    if missing:
        raise WorkdirError(
            f"{workdir.run_file} is not a kerastrain run's record: it has no "
            f"{', '.join(sorted(missing))}. Use another --workdir."
        )
    # Before this was an option it was always so many.
    recorded["resolved"].setdefault("evaluate_batch", 1000)
    return recorded


def evaluating_as_recorded(job: Job, recorded: Mapping[str, Any]) -> Job:
    """The job; left out, `evaluate_batch` is what the run began with."""
    if job.options.evaluate_batch is not None:
        return job
    size = recorded["resolved"]["evaluate_batch"]
    return dataclasses.replace(job, options=dataclasses.replace(job.options, evaluate_batch=size))


BUDGETS = ("max_epochs", "max_steps", "max_seconds", "more_epochs", "stop_rule")


def is_same_command(
    options: TrainOptions, recorded: Mapping[str, Any], result: Mapping[str, Any], files: Files
) -> bool:
    """Whether nothing that matters differs, judged without running the recipe's file.

    Args:
        files: of the options, which do not differ from those recorded.
    """
    before = TrainOptions.from_json(result["given"])
    return (
        not options.differences(before)
        and not _unknown_locations(options, before, recorded, files)
        and all(getattr(options, name) == getattr(before, name) for name in BUDGETS)
        and (RECIPE in files or recorded["recipe_sha256"] == _recipe_sha256(options))
    )


def _recipe_sha256(options: TrainOptions) -> str:
    return source_sha256(locate_recipe(options.recipe))


def check_same_files(
    workdir: Workdir,
    recorded: Mapping[str, Any],
    options: TrainOptions,
    files: Files,
    *,
    override: bool,
) -> None:
    """Raises ResumeError when a file that data or recipe are in differs from the recorded one."""
    lines = differences(recorded.get("files", {}), files)
    is_old = RECIPE in files and "files" not in recorded
    if is_old and recorded["recipe_sha256"] != _recipe_sha256(options):
        lines = [f"{RECIPE}: {options.recipe} was edited, or a comment in it"]
    what = "was trained by another recipe" if RECIPE in str(lines) else "was trained on other data"
    refuse_differences(workdir, what, lines, override=override)


def say_what_is_not_known(workdir: Workdir, recorded: Mapping[str, Any], files: Files) -> None:
    """Warns of files of a finished run that cannot be compared."""
    if files and "files" not in recorded:
        logger.warning(
            "The run in %s was recorded by an earlier version of kerastrain, without what its "
            "files hold; whether that has changed is not known.",
            workdir,
        )
    for role in recorded.get("files", {}).keys() - files.keys():
        at = recorded["files"][role]["at"]
        logger.warning("%s is not there; whether the %s changed is not known.", at, role)


def check_same_data(job: Job, workdir: Workdir, recorded: Mapping[str, Any]) -> None:
    """Raises ResumeError when data that are not known by their files are not the recorded run's.

    The other checks of a run find that out by themselves; one that is finished makes none.
    """
    before = TrainOptions.from_json(recorded["resolved"])
    is_elsewhere = _unknown_locations(job.options, before, recorded, job.files)
    may_differ = set(job.files) == {RECIPE} or (job.new_version and not job.files)
    if not is_elsewhere and not may_differ:
        return
    if job.load_data().fingerprint() != recorded["data_fingerprint"]:
        difference = ["the data's fingerprint differs"]
        refuse_differences(workdir, "was trained on other data", difference, override=job.override)


def _unknown_locations(
    options: TrainOptions, before: TrainOptions, recorded: Mapping[str, Any], files: Files
) -> list[str]:
    """Options for data that are elsewhere, and are not known to be the same files."""
    known = recorded.get("files", {})
    both = known.keys() & files.keys()
    moved = [n for n in LOCATIONS if getattr(options, n) != getattr(before, n)]
    tables = options.table, before.table
    moved += [n for n in TABLE_LOCATIONS if len({getattr(table, n) for table in tables}) > 1]
    return [n for n in moved if n not in both or not has_same_content(known[n], files[n])]


def _asks_for_more(options: TrainOptions, before: TrainOptions) -> bool:
    """Whether a budget is larger than it was."""
    return (options.max_epochs or 0) > (before.max_epochs or 0) or (
        options.max_steps or math.inf
    ) > (before.max_steps or math.inf)


def check_same_run(job: Job, workdir: Workdir, recorded: Mapping[str, Any]) -> None:
    """Raises ResumeError when what is learned would differ from the recorded run."""
    before = TrainOptions.from_json(recorded["resolved"])
    lines = [*job.options.differences(before), *_beyond_its_end(job, workdir, before)]
    refuse_differences(workdir, "has other options", lines, override=job.override)
    check_same_files(workdir, recorded, job.options, job.files, override=job.override)


def _beyond_its_end(job: Job, workdir: Workdir, before: TrainOptions) -> list[str]:
    """A line if the run is beyond the step where the rule of now would have stopped it."""
    was, now = before.stop_rule, job.options.stop_rule
    at = _newest_step(workdir)
    found = None if _is_same_rule(was, now) else _judged(job, workdir)
    if found is None or found.stopped_at is None or found.stopped_at.step >= at:
        return []
    return [
        f"stop: {was!r} recorded, {now!r} now, which would have stopped the run at step "
        f"{found.stopped_at.step:,}; it is at step {at:,}"
    ]


def _is_same_rule(one: str, other: str) -> bool:
    try:
        return one == other or str(parse_criterion(one)) == str(parse_criterion(other))
    except OptionsError:  # One of a program's own.
        return False


def _newest_step(workdir: Workdir) -> int:
    return max(CheckpointFiles(workdir.latest_checkpoints).steps(), default=0)


def _judged(job: Job, workdir: Workdir) -> Outcome | None:
    """What the rule of now says of the run so far; None before the first evaluation."""
    at = _newest_step(workdir)
    # What is logged beyond the newest checkpoint has not happened: it is done again.
    evaluations = [e for e in read_evaluations(workdir.metrics_file) if e.step <= at]
    return outcome(job.stop_rule, evaluations, job.objective) if evaluations else None


def is_to_go_on(job: Job, workdir: Workdir, result: Mapping[str, Any]) -> bool:
    """Whether a run that has ended was given more of what it ended for want of."""
    options = job.options
    before = TrainOptions.from_json(result["resolved"])
    if options.more_epochs is not None and options.more_epochs != before.more_epochs:
        return True
    has_new_rule = not _is_same_rule(options.stop_rule, before.stop_rule)
    if before.more_epochs is not None and not has_new_rule and not _asks_for_more(options, before):
        return False  # It went on for so long, and is over.
    if result["ended"] == "stopped":
        found = _judged(job, workdir) if has_new_rule else None
        return found is not None and found.stopped_at is None
    steps_per_epoch = round(result["step"] / result["epoch"])
    by_epochs = (options.max_epochs or 0) * steps_per_epoch
    has_steps = min(by_epochs, options.max_steps or by_epochs) > result["step"]
    if result["ended"] == "time":
        assert before.max_seconds is not None
        return has_steps and (options.max_seconds or math.inf) > before.max_seconds
    return result["ended"] == "budget" and has_steps


def finishing_what_was_begun(job: Job, recorded: Mapping[str, Any]) -> Job:
    """The job; with the epochs by which the run was to go on, if it was interrupted in them."""
    before = TrainOptions.from_json(recorded["resolved"])
    if before.more_epochs is None or job.options.more_epochs is not None:
        return job
    if _asks_for_more(job.options, before):
        return job
    options = dataclasses.replace(job.options, more_epochs=before.more_epochs)
    return dataclasses.replace(job, options=options)
