"""Whether this process is one of several that TensorFlow's TF_CONFIG names.

check_alone()     # before anything is trained
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from kerastrain.errors import OptionsError


def check_alone() -> None:
    """Raises OptionsError when TF_CONFIG names several processes, or cannot be read.

    {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    try:
        config = json.loads(text or "{}")
        cluster = config.get("cluster") or {}
        tasks = {kind: _addresses(of_kind) for kind, of_kind in cluster.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise OptionsError(
            f"TF_CONFIG is {text[:200]!r}, which cannot be read ({error}); expected a JSON object "
            'as {"cluster": {"worker": ["host:port"]}, "task": {"type": "worker", "index": 0}}. '
            "Correct it, or unset it: one process trains by itself."
        ) from None
    if sum(map(len, tasks.values())) > 1:
        named = "; ".join(f"{kind} {', '.join(addresses)}" for kind, addresses in tasks.items())
        raise OptionsError(
            f"TF_CONFIG names several processes ({named}). kerastrain trains in one process, on "
            "all of its GPUs, so each of these would train the whole run by itself. Start it on "
            "one machine, with TF_CONFIG unset."
        )


def _addresses(of_kind: object) -> list[str]:
    """Of one kind of task, ["a:1"]; TensorFlow takes {"0": "a:1"} as well."""
    if not isinstance(of_kind, (list, Mapping)):
        raise TypeError(f"{of_kind!r} is no list of addresses")
    return list(map(str, of_kind.values() if isinstance(of_kind, Mapping) else of_kind))
