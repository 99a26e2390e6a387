"""A training killed again and again, compared with one left alone.

    proof = Proof(["--recipe=digits"], folder=folder, kills=20)
    report = proof.run()
    report.differences       # [] when no byte differs

Every start is a process of the real command; a kill is SIGKILL, which no process
hears. Where it was then, the run's own heartbeat says (`training.starts`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerastrain.errors import KerastrainError
from kerastrain.resume_check.comparison import Remains, differences, what_remains
from kerastrain.resume_check.instants import SAVES, Instant, Timeline, choose_instant
from kerastrain.training.checkpoint_files import PREFIX, CheckpointFiles
from kerastrain.training.starts import Start, read_heartbeat
from kerastrain.workdir import Workdir, read_json

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.002
# A start of a killed run that takes so much longer than the whole undisturbed run hangs.
PATIENCE_TIMES, PATIENCE_SECONDS = 10, 600.0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        number: from 1, over all runs.
        run: which killed run, from 1.
        phase: "starting", "training", "evaluating", "saving", "exporting" or "ending".
        step: optimizer steps done, as the process last said; None while it starts.
        resumed_step: of the checkpoint from which the next start goes on; None: the beginning.
    """

    number: int
    run: int
    phase: str
    step: int | None
    resumed_step: int | None

    @property
    def lost_steps(self) -> int:
        """At least so many steps are repeated; those of the chunk that was running come on top."""
        return max(0, (self.step or 0) - (self.resumed_step or 0))

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step:,}"
        start = "the beginning" if self.resumed_step is None else f"step {self.resumed_step:,}"
        lost = f", at least {self.lost_steps:,} steps are repeated" if self.lost_steps else ""
        return f"Kill {self.number}: {self.phase}{at}; to go on from {start}{lost}."


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        runs: how many killed runs ended and were compared.
        values: how many values were compared in each: variables, logs, results.
        differences: a line each, of the first run that differs; none is the proof.
    """

    kills: Sequence[Kill]
    runs: int
    values: int
    differences: Sequence[str]


class _Failed(Exception):
    """A process did not end as it should. The message says how, without a subject."""


class Proof:
    """Trains undisturbed, then killed, and compares."""

    def __init__(
        self, arguments: Sequence[str], *, folder: str | os.PathLike[str], kills: int, seed: int = 0
    ):
        """
        Args:
            arguments: of `kerastrain train`, as "--name=value", without --workdir.
            folder: an empty one; the runs and what they said are left there.
            kills: how many SIGKILLs.
            seed: of the instants.
        """
        self.kills: list[Kill] = []
        self._arguments = list(arguments)
        self._folder = Path(folder)
        self._wanted = kills
        self._rng = random.Random(seed)
        self._saves = float(SAVES)
        self._temporary = self._folder / "tmp"  # Killed processes leave something there.
        self._temporary.mkdir(parents=True)

    def run(self) -> Report:
        """Until there were enough kills, and the last killed run has ended.

        Raises:
            KerastrainError: the undisturbed run did not end well; its last words are told.
        """
        logger.info("First a run that nobody disturbs.")
        whole = Workdir(self._folder / "undisturbed")
        try:
            self._timeline = self._train_undisturbed(whole)
        except _Failed as failed:
            raise KerastrainError(
                f"The undisturbed run {failed}. Its last words:\n{_last_words(whole)}"
            ) from None
        remains = what_remains(whole)
        found: list[str] = []
        runs = 0
        while len(self.kills) < self._wanted and not found:
            runs += 1
            found = self._train_killed(runs, whole, remains)
        return Report(tuple(self.kills), runs, len(remains), tuple(found))

    def _train_undisturbed(self, workdir: Workdir) -> Timeline:
        watch = _Watch(workdir)
        saved: set[int] = set()
        with self._process(workdir, watch) as process:
            while process.poll() is None:
                watch.look()
                saved.update(watch.files.steps())
                time.sleep(LOOK_SECONDS)
            timeline = Timeline.measured(watch.reached, ended=time.monotonic())
        _check_status(process)
        steps = read_json(workdir.result_file)["step"]
        logger.info(
            f"It took {timeline.starting:.1f} s to start, {timeline.training:.1f} s to train "
            f"{steps:,} steps and {timeline.exporting:.1f} s to export."
        )
        if any(argument.startswith("--checkpoint_every=") for argument in self._arguments):
            self._saves = len(saved)
        else:
            self._arguments.append(f"--checkpoint_every={timeline.save_interval:.3f}s")
            self._saves = timeline.training / timeline.save_interval
        return timeline

    def _train_killed(self, run: int, whole: Workdir, remains: Remains) -> list[str]:
        """One run, killed until it ends; returns in what it differs from the undisturbed one."""
        workdir = Workdir(self._folder / f"killed_{run}")
        workdir.path.mkdir()
        # How steps are run is measured by the clock, once in a run. It decides bytes and
        # log points, and might be decided otherwise here.
        shutil.copy(whole.executor_file, workdir.executor_file)
        try:
            while (kill := self._start(workdir, run)) is not None:
                self.kills.append(kill)
                logger.info("%s", kill)
        except _Failed as failed:
            return [f"run {run} {failed}; its last words:\n{_last_words(workdir)}"]
        found = differences(what_remains(workdir), remains)
        logger.info(
            "Killed run %d has ended: %d of %d values differ.", run, len(found), len(remains)
        )
        return found

    def _start(self, workdir: Workdir, run: int) -> Kill | None:
        """One start, killed at a random instant; None: it ended by itself.

        Raises:
            _Failed: with an error, or never.
        """
        instant = self._next_instant()
        patience = PATIENCE_SECONDS + PATIENCE_TIMES * self._timeline.total
        watch = _Watch(workdir)
        with self._process(workdir, watch) as process:
            while process.poll() is None:
                watch.look()
                now = time.monotonic()
                if instant is not None and instant.is_due(watch.reached, now=now):
                    if _kill(process):
                        return watch.killed(number=len(self.kills) + 1, run=run)
                elif now - watch.reached["starting"] > patience:
                    raise _Failed(f"was started again and had not ended {patience:,.0f} s later")
                time.sleep(LOOK_SECONDS)
        _check_status(process)
        return None

    def _next_instant(self) -> Instant | None:
        if len(self.kills) >= self._wanted:
            return None
        return choose_instant(self._rng, self._timeline, saves=self._saves)

    @contextlib.contextmanager
    def _process(self, workdir: Workdir, watch: _Watch) -> Iterator[subprocess.Popen[bytes]]:
        """A process that trains; it is gone when the context is left, however it is left."""
        command = [sys.executable, "-m", "kerastrain", "train", *self._arguments]
        with open(_log(workdir), "ab") as log:
            process = subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self._temporary)},
                # A Ctrl-C is for us, and we end the process.
                start_new_session=True,
            )
        try:
            watch.begin()
            yield process
        finally:
            _kill(process)


class _Watch:
    """When one start of a run was seen to reach what."""

    def __init__(self, workdir: Workdir):
        self.files = CheckpointFiles(workdir.latest_checkpoints)
        self.reached: dict[str, float] = {}
        self._workdir = workdir
        # What a killed start has left behind is no sign of this one.
        self._stale = self._read()
        self._saved_step = self._newest_step() or 0
        self._first_step: int | None = None
        self._last: Start | None = None

    def begin(self) -> None:
        self.reached["starting"] = time.monotonic()

    def look(self) -> None:
        """Takes note of the start's last sign of life."""
        beat = self._read()
        if beat is None or beat == self._stale:
            return
        self._last = beat
        if beat.phase == "exporting":
            self.reached.setdefault("exporting", time.monotonic())
        elif beat.phase != "starting":
            if self._first_step is None:
                self._first_step = beat.step
            if beat.step > self._first_step:
                self.reached.setdefault("training", time.monotonic())
            if "saved" not in self.reached and (self._newest_step() or 0) > self._saved_step:
                self.reached["saved"] = time.monotonic()

    def killed(self, *, number: int, run: int) -> Kill:
        """What is known after the kill."""
        self.look()
        phase = "starting" if self._last is None else self._last.phase
        step = None if self._last is None or phase == "starting" else self._last.step
        if self._workdir.result_file.exists():
            phase = "ending"
        elif phase in ("training", "evaluating") and self._is_half_written():
            phase = "saving"  # A thread writes, beside what the heartbeat says.
        return Kill(number, run, phase, step, self._newest_step())

    def _newest_step(self) -> int | None:
        return max(self.files.steps(), default=None)

    def _read(self) -> Start | None:
        with contextlib.suppress(FileNotFoundError):  # It can go while we look.
            return read_heartbeat(self._workdir)
        return None

    def _is_half_written(self) -> bool:
        """Whether files of a checkpoint lie there that no record commits."""
        committed = {f"{PREFIX}-{step}" for step in self.files.steps()}
        names = [path.name.removeprefix(".") for path in self.files.folder.glob(f"*{PREFIX}-*")]
        return any(name.partition(".")[0].partition("_")[0] not in committed for name in names)


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process was still there, and died of it."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.returncode == -signal.SIGKILL


def _check_status(process: subprocess.Popen[bytes]) -> None:
    if process.returncode != 0:
        raise _Failed(f"ended with status {process.returncode}")


def _log(workdir: Workdir) -> Path:
    return workdir.path.with_name(f"{workdir.path.name}.log")


def _last_words(workdir: Workdir) -> str:
    return "\n".join(_log(workdir).read_text(errors="replace").splitlines()[-15:])
