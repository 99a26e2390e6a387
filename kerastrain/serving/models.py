"""The models that are served: which versions are loaded, and who is using them.

    models = Models([ModelSpec("digits", Path("exports/digits"))])
    await models.start()                       # loads, then watches the folders
    with models.use("digits") as servable:     # stays loaded until the block ends
        servable.call("serving_default", …)
    models.statuses("digits")                  # [VersionStatus(3, "AVAILABLE"), …]

Each base has a watcher (watcher.py), which changes the versions in a thread of its own;
requests only look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import Servable
from kerastrain.serving.versions import LATEST, VersionPolicy, VersionStatus
from kerastrain.serving.watcher import Load, LoadedVersion, Watcher, load_and_warm_up

__all__ = ["ModelSpec", "Models", "Use", "VersionStatus"]

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class ModelSpec:
    """A model to serve.

    Attributes:
        base: the folder that holds its versions.
        labels: label -> version; such a version is served whatever the policy says.
    """

    name: str
    base: Path
    labels: Mapping[str, int] = field(default_factory=dict)
    policy: VersionPolicy = LATEST


class Use:
    """A servable that stays loaded for as long as the context lasts."""

    __slots__ = ("_loaded", "_watcher")

    def __init__(self, watcher: Watcher, loaded: LoadedVersion):
        self._watcher = watcher
        self._loaded = loaded

    def __enter__(self) -> Servable:
        assert self._loaded.servable is not None  # counted as in use before it was given
        return self._loaded.servable

    def __exit__(self, *exception: object) -> None:
        self._watcher.release(self._loaded)


class Models:
    """All models of a server, by name."""

    def __init__(
        self,
        specs: Iterable[ModelSpec],
        *,
        poll_seconds: float = POLL_SECONDS,
        load: Load = load_and_warm_up,
    ):
        specs = list(specs)
        self._specs = {spec.name: spec for spec in specs}
        if len(self._specs) != len(specs):
            raise ValueError(f"two models have one name: {[spec.name for spec in specs]}")
        self._watchers = {
            spec.name: Watcher(
                spec.name,
                spec.base,
                policy=spec.policy,
                pinned=frozenset(spec.labels.values()),
                poll_seconds=poll_seconds,
                load=load,
            )
            for spec in specs
        }

    async def start(self) -> None:
        """Loads what is there; returns when every model was tried once. Watches from then on."""
        for watcher in self._watchers.values():
            watcher.start()
        first = (asyncio.to_thread(watcher.tried.wait) for watcher in self._watchers.values())
        await asyncio.gather(*first)

    async def close(self) -> None:
        """Stops watching; a version that is being loaded is loaded to its end first."""
        for watcher in self._watchers.values():
            watcher.stop()
        while any(watcher.is_alive for watcher in self._watchers.values()):
            await asyncio.sleep(0.01)

    def names(self) -> list[str]:
        return list(self._specs)

    @property
    def specs(self) -> list[ModelSpec]:
        return list(self._specs.values())

    @property
    def is_ready(self) -> bool:
        """Whether every model can be asked."""
        return all(watcher.newest is not None for watcher in self._watchers.values())

    def has_version(self, name: str, version: int) -> bool:
        """Whether such a version was seen, whatever became of it."""
        watcher = self._watchers.get(name)
        return watcher is not None and any(s.version == version for s in watcher.statuses())

    def use(self, name: str, version: int | None = None, label: str | None = None) -> Use:
        """The servable that a request means, for a `with` statement.

        Raises:
            ServingError: NOT_FOUND, there is no such model or version now;
                INVALID_ARGUMENT, no such label.
        """
        version = self._resolved(name, version, label)
        watcher = self._watchers.get(name)
        loaded = None if watcher is None else watcher.acquire(version)
        if watcher is None or loaded is None:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return Use(watcher, loaded)

    def statuses(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> list[VersionStatus]:
        """The versions and their states, newest first; of one version only if it is asked for.

        Raises:
            ServingError: NOT_FOUND, no such version was ever seen; INVALID_ARGUMENT, no such
                label.
        """
        version = self._resolved(name, version, label)
        watcher = self._watchers.get(name)
        found = [] if watcher is None else watcher.statuses()
        if version is not None:
            found = [status for status in found if status.version == version]
        if not found:
            what = "any versions" if version is None else f"version {version}"
            raise ServingError("NOT_FOUND", f"Could not find {what} of model {name}")
        return found

    def _resolved(self, name: str, version: int | None, label: str | None) -> int | None:
        """The version that a label names, or the version itself."""
        if not label:
            return version
        spec = self._specs.get(name)
        if spec is None or label not in spec.labels:
            raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return spec.labels[label]
