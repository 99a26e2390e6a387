"""One base folder, watched: new versions are loaded, versions no longer wanted are let go.

    watcher = Watcher("digits", Path("exports/digits"))
    watcher.start()                      # a thread of its own; looks every second
    loaded = watcher.acquire(None)       # the newest; counted as in use
    watcher.release(loaded)

The order is that of TensorFlow Serving's AvailabilityPreservingPolicy: a version goes only
when what takes its place can be asked, one that fails to load leaves the old one serving, and
a request keeps its version to the end. A failed version is tried again when its files change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import Servable, load_servable
from kerastrain.serving.versions import (
    AVAILABLE,
    END,
    LATEST,
    LOADING,
    START,
    UNLOADING,
    VersionPolicy,
    VersionStatus,
    found_versions,
)
from kerastrain.serving.warm_up import warm_up

logger = logging.getLogger(__name__)

Load = Callable[[str, Path], Servable]

# A server that runs for months sees many versions come and go.
_ENDED_KEPT = 100


def load_and_warm_up(model: str, folder: Path) -> Servable:
    """Loads a version and asks it once what it will be asked.

    Raises:
        ServingError: it cannot be loaded, or fails on its own warm-up requests.
    """
    servable = load_servable(model, folder)
    warm_up(servable)
    return servable


@dataclass(eq=False)
class LoadedVersion:
    """A version and how far it is; guarded by its watcher's lock."""

    version: int
    state: str = START
    servable: Servable | None = None
    uses: int = 0
    error: ServingError | None = None
    stamp: tuple[object, ...] = ()  # of the files that failed to load

    def status(self) -> VersionStatus:
        if self.error is None:
            return VersionStatus(self.version, self.state)
        return VersionStatus(self.version, self.state, self.error.code, self.error.message)


class Watcher:
    """Keeps the wanted versions of one model loaded.

    Attributes:
        tried: set once every version found at the start was loaded, or failed to.
    """

    def __init__(
        self,
        model: str,
        base: Path,
        *,
        policy: VersionPolicy = LATEST,
        pinned: frozenset[int] = frozenset(),
        poll_seconds: float = 1.0,
        load: Load = load_and_warm_up,
    ):
        self.model = model
        self.tried = threading.Event()
        self._base = base
        self._policy = policy
        self._pinned = pinned
        self._poll_seconds = poll_seconds
        self._load = load
        self._versions: dict[int, LoadedVersion] = {}
        self._available: dict[int, LoadedVersion] = {}  # newest first
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch {model}", daemon=True)
        self._complaint = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def is_alive(self) -> bool:
        """Whether it still looks after the base; it does until a load that goes on has ended."""
        return self._thread.is_alive()

    @property
    def newest(self) -> int | None:
        """The version that answers when none is asked for."""
        return next(iter(self._available), None)

    def acquire(self, version: int | None) -> LoadedVersion | None:
        """A version (None: the newest) counted as in use until `release`; None: not there."""
        with self._lock:
            if version is None:
                version = self.newest
            loaded = None if version is None else self._available.get(version)
            if loaded is not None:
                loaded.uses += 1
            return loaded

    def release(self, loaded: LoadedVersion) -> None:
        with self._lock:
            loaded.uses -= 1

    def statuses(self) -> list[VersionStatus]:
        """Of every version seen, newest first."""
        with self._lock:
            return [self._versions[version].status() for version in sorted(self._versions)[::-1]]

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception:  # a bug: told, and the models go on answering
                logger.exception("Looking after model %s failed.", self.model)
            self.tried.set()
            self._stopped.wait(self._poll_seconds)

    def look(self) -> None:
        """Looks once and does what is to be done."""
        try:
            found = found_versions(self._base)
        except OSError as error:  # a share that is away for a moment; what is loaded stays
            self._complain(f"{self._base} cannot be read: {error.strerror}")
            return
        self._complain("" if found else f"{self._base} holds no version yet; waiting for one")
        failed = {version for version in found if self._has_failed(version, found[version])}
        wanted = self._wanted(found, failed)
        while new := wanted - set(self._available):
            self._expect(new)
            for version in sorted(new, reverse=True):
                if self._stopped.is_set():
                    return
                if not self._load_version(version, found[version]):
                    failed.add(version)
            wanted = self._wanted(found, failed)
        self._retire(wanted)
        self._unload_unused()

    def _wanted(self, found: dict[int, Path], failed: set[int]) -> set[int]:
        """As the policy says, of those that can be loaded.

        Unlike in TensorFlow Serving, the next older version takes the place of one that
        fails, also at the start: a damaged newest version does not end the service.
        """
        usable = set(found) - failed
        return self._policy.wanted(usable) | (self._pinned & usable)

    def _has_failed(self, version: int, folder: Path) -> bool:
        """Whether it failed to load and its files are still the same."""
        known = self._versions.get(version)
        return known is not None and known.error is not None and known.stamp == _stamp(folder)

    def _expect(self, versions: set[int]) -> None:
        with self._lock:
            self._versions |= {version: LoadedVersion(version) for version in versions}

    def _complain(self, complaint: str) -> None:
        """Says what is wrong once, not every second."""
        if complaint and complaint != self._complaint:
            logger.warning("Model %s: %s.", self.model, complaint)
        self._complaint = complaint

    def _load_version(self, version: int, folder: Path) -> bool:
        entry = self._versions[version]
        entry.state = LOADING
        stamp, start = _stamp(folder), time.perf_counter()
        try:
            servable = self._load(self.model, folder)
        except Exception as error:  # a version that fails, however it does, is only reported
            self._record_failure(entry, error, stamp)
            return False
        with self._lock:
            entry.servable, entry.state = servable, AVAILABLE
            self._available = dict(sorted({**self._available, version: entry}.items())[::-1])
        seconds = time.perf_counter() - start
        logger.info("Model %s: version %d is served (%.1f s).", self.model, version, seconds)
        return True

    def _record_failure(
        self, entry: LoadedVersion, error: Exception, stamp: tuple[object, ...]
    ) -> None:
        if not isinstance(error, ServingError):
            logger.debug("loading %s failed", self.model, exc_info=error)
            error = ServingError("UNKNOWN", f"{type(error).__name__}: {error}")
        with self._lock:
            entry.state, entry.error, entry.stamp = END, error, stamp
        still = f"version {self.newest} goes on" if self.newest is not None else "nothing is served"
        logger.warning(
            "Model %s: version %d cannot be served; %s. %s",
            self.model,
            entry.version,
            still,
            error.message,
        )

    def _retire(self, wanted: set[int]) -> None:
        """Takes versions that are not wanted out of service, now that the wanted ones are in."""
        with self._lock:
            for version in set(self._available) - wanted:
                self._available[version].state = UNLOADING
            self._available = {v: e for v, e in self._available.items() if v in wanted}

    def _unload_unused(self) -> None:
        """Frees what is retired and in nobody's use: here, and not in a request's time."""
        freed = []  # outlives the lock: freeing takes milliseconds
        with self._lock:
            for entry in self._versions.values():
                if entry.state == UNLOADING and entry.uses == 0:
                    freed.append(entry.servable)
                    entry.servable, entry.state = None, END
                    logger.info("Model %s: version %d is unloaded.", self.model, entry.version)
            ended = [v for v in sorted(self._versions) if self._versions[v].state == END]
            for version in ended[:-_ENDED_KEPT]:
                del self._versions[version]


def _stamp(folder: Path) -> tuple[object, ...]:
    """What changes when a file of the folder does."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    except OSError:  # something went away while we looked: different from the next look
        return (time.monotonic_ns(),)
