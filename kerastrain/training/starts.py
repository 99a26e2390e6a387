"""How often this run was started, and how each start ended: also one that was killed.

    starts = Starts(workdir)
    starts.begin()                       # notes what a killed start left behind
    starts.beat("training", step=1234)   # a write to memory; survives SIGKILL
    starts.end("finished")

The heartbeat is a small file mapped into memory: writing to it is as cheap as writing
to memory, and the system keeps what was written when the process dies at any instant.
The next start finds in it when and where the killed one was.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from kerastrain.errors import WorkdirError
from kerastrain.training.cadence import mean_seconds_between
from kerastrain.workdir import Workdir, read_json, write_json

KILLED = "killed"
BEAT_BYTES = 128


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
        began: wall-clock time, ISO 8601 in UTC; it identifies the start.
        seconds: from its beginning to its end, or to its last sign of life.
        step, phase: where it was then ("training", "evaluating", "saving", "exporting", …).
        ended: "finished", a signal's name, "error", or "killed": without a word.
    """

    began: str
    seconds: float
    step: int
    phase: str
    ended: str

    @property
    def where(self) -> str:
        """For people: "at step 1,234 while training"."""
        return f"at step {self.step:,} while {self.phase}"


class Starts:
    """The record of a run's starts, in its work directory whose lock is held.

    Args:
        clock: `time.monotonic` when this start began; None: now.
    """

    def __init__(self, workdir: Workdir, *, clock: float | None = None):
        self._workdir = workdir
        self._map: mmap.mmap | None = None
        self._began = ""
        self._clock = time.monotonic() if clock is None else clock
        self._step = 0
        self._phase = "starting"
        self.earlier = read_starts(workdir)

    @property
    def killed_before(self) -> Start | None:
        """The start just before this one, when it ended without a word."""
        last = self.earlier[-1] if self.earlier else None
        return last if last is not None and last.ended == KILLED else None

    @property
    def seconds_before(self) -> float:
        """How long all earlier starts of the run ran together."""
        return sum(start.seconds for start in self.earlier)

    @property
    def seconds(self) -> float:
        """How long this start has run."""
        return time.monotonic() - self._clock

    @property
    def mean_seconds_between_interruptions(self) -> float:
        """Of starts that ended without a word; a signal that was heard loses no work."""
        killed = sum(start.ended == KILLED for start in self.earlier)
        return mean_seconds_between(interruptions=killed, seconds=self.seconds_before)

    def begin(self) -> None:
        """Notes the end of a killed start, and shows signs of life from here on."""
        if self._workdir.heartbeat_file.exists():
            write_starts(self._workdir, self.earlier)
        # So fine that two starts never have the same.
        now = datetime.now(timezone.utc)
        self._began = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            # Every byte is really on the disk: a mapped page without room would be fatal later.
            self._workdir.heartbeat_file.write_bytes(b" " * BEAT_BYTES)
            descriptor = os.open(self._workdir.heartbeat_file, os.O_RDWR)
            try:
                self._map = mmap.mmap(descriptor, BEAT_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise WorkdirError(
                f"{self._workdir.heartbeat_file} cannot be written: {error.strerror}."
            ) from error
        self.beat("starting", step=0)

    def beat(self, phase: str, *, step: int | None = None) -> None:
        """A sign of life: where the run is now."""
        self._phase = phase
        self._step = self._step if step is None else step
        if self._map is not None:
            self._write(self._text())

    def _text(self) -> str:
        return f"{self._began} {self.seconds:.3f} s step {self._step} {self._phase}"

    def _write(self, text: str) -> None:
        assert self._map is not None
        self._map[:] = text.encode()[:BEAT_BYTES].ljust(BEAT_BYTES)

    @property
    def where(self) -> str:
        """Where this start is, for people: "at step 1,234", "while exporting"."""
        in_loop = self._phase not in ("starting", "exporting")
        return f"at step {self._step:,}" if in_loop else f"while {self._phase}"

    def end(self, how: str) -> None:
        """Notes how this start ended; not if it failed before there was a run."""
        if self._map is None:
            return
        # First where it needs no room, in case the disk is full.
        self._write(f"{self._text()}; ended: {how}")
        self._map.close()
        self._map = None
        if how == "error" and not self._workdir.run_file.exists():
            self._workdir.heartbeat_file.unlink(missing_ok=True)
            return
        write_starts(self._workdir, [*self.earlier, self._as_of_now(how)])

    def _as_of_now(self, ended: str) -> Start:
        return Start(self._began, round(self.seconds, 3), self._step, self._phase, ended)


def read_starts(workdir: Workdir) -> list[Start]:
    """All starts that have ended, oldest first; one that was killed as its last sign says.

    While another process trains, its heartbeat looks like that of a killed one.

    Raises:
        WorkdirError: the record cannot be read.
    """
    starts: list[Start] = []
    if workdir.starts_file.exists():
        recorded = read_json(workdir.starts_file)
        try:
            starts = [Start(**values) for values in recorded["starts"]]
        except (KeyError, TypeError) as error:
            raise WorkdirError(f"{workdir.starts_file} cannot be read: {error!r}") from error
    last = read_heartbeat(workdir)
    if last is not None and all(start.began != last.began for start in starts[-1:]):
        starts.append(last)
    return starts


def read_heartbeat(workdir: Workdir) -> Start | None:
    """The last sign of life; None when there is none. A start that did not say that it ended
    was killed.

    One that is damaged says nothing; it decides nothing that is learned.
    """
    if not workdir.heartbeat_file.exists():
        return None
    text = workdir.heartbeat_file.read_bytes().decode(errors="replace").strip()
    match = re.fullmatch(r"(\S+Z) (\d+\.\d+) s step (\d+) (\S[^;]*)(?:; ended: (.+))?", text)
    if match is None:
        return None
    return Start(match[1], float(match[2]), int(match[3]), match[4], match[5] or KILLED)


def write_starts(workdir: Workdir, starts: list[Start]) -> None:
    """Puts the record in its place, and only then takes the heartbeat away."""
    write_json(workdir.starts_file, {"starts": [asdict(start) for start in starts]})
    workdir.heartbeat_file.unlink(missing_ok=True)
