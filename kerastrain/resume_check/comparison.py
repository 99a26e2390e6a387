"""What is left of a finished run, and in what two of them differ.

    differences(what_remains(one), what_remains(other))     # [] when no byte differs

TensorFlow is imported when checkpoints are read.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerastrain.training.checkpoint_files import PREFIX, CheckpointFiles
from kerastrain.workdir import Workdir, read_json, without_patterns

Remains = Mapping[str, Any]

# What depends on the clock, and nothing else may be left out of a comparison.
CLOCK = ("seconds", "evaluation_seconds", "examples_per_second")
# Of result.json: where the run lies, and how it was asked to save.
OF_THE_COMMAND = ("export", "given", "resolved")
# TensorFlow's list of an export's objects, in which functions have numbers that count
# what the process made before.
OF_THE_PROCESS = ("_CHECKPOINTABLE_OBJECT_GRAPH",)


def what_remains(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions, by name.

    The bytes of every variable of the newest checkpoint, of the best weights and of the
    exported SavedModel; history and callbacks' progress; metrics, result and splits.

    Raises:
        WorkdirError: the run is not finished.
    """
    run = Workdir(workdir)
    result = read_json(run.result_file)
    found = {f"result: {k}": v for k, v in result.items() if k not in OF_THE_COMMAND}
    found["metrics.jsonl"] = [
        _without_clock(json.loads(line)) for line in run.metrics_file.read_text().splitlines()
    ]
    for kind, folder in (("latest", run.latest_checkpoints), ("best", run.best_checkpoints)):
        files = CheckpointFiles(folder)
        for step in files.steps()[-1:]:
            if reason := files.damage(step):
                found[f"{kind}: damage"] = reason
                continue
            paths = _paths(read_json(files.record_file(step))["variables"])
            found[f"{kind}: step"] = step
            found.update(_variables(folder / f"{PREFIX}-{step}", kind, paths))
    export = run.path / result["export"] / "variables" / "variables"
    found.update(_variables(export, "export", {}, left_out=OF_THE_PROCESS))
    found.update(_splits(run.splits_file))
    return found


def _variables(
    prefix: Path, kind: str, paths: Mapping[str, str], *, left_out: Sequence[str] = ()
) -> Iterator[tuple[str, Any]]:
    """(name, bytes) of every variable that lies under a checkpoint's prefix."""
    import tensorflow as tf

    with without_patterns(prefix.parent) as folder:
        reader = tf.train.load_checkpoint(f"{folder}/{prefix.name}")
        keys = sorted(set(reader.get_variable_to_shape_map()) - set(left_out))
        values = {key.partition("/.ATTRIBUTES/")[0]: reader.get_tensor(key) for key in keys}
    for name, value in values.items():
        if name == "host":
            host = _without_clock(json.loads(value))
            yield from ((f"{kind}: host: {field}", content) for field, content in host.items())
        else:
            path = f" ({paths[name]})" if name in paths else ""
            yield f"{kind}: {name}{path}", value if isinstance(value, bytes) else value.tobytes()


def _paths(described: Sequence[Sequence[Any]]) -> dict[str, str]:
    """{"model/3": "dense/kernel"}: the model's own names of a checkpoint's variables.

    Args:
        described: [group, path, shape, dtype] or [path, shape, dtype], in the order of saving.
    """
    paths: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for *group, path, _, _ in described:
        name = group[0] if group else "model"
        paths[f"{name}/{counts[name]}"] = path
        counts[name] += 1
    return paths


def _without_clock(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CLOCK}


def _splits(file: Path) -> Iterator[tuple[str, bytes]]:
    import numpy as np

    if file.exists():
        with np.load(file) as splits:
            yield from ((f"splits: {name}", splits[name].tobytes()) for name in splits.files)


def differences(found: Remains, expected: Remains) -> list[str]:
    """A line for everything in which one run differs from another; none when they are equal."""
    lines = [
        f"{name}: {_difference(found[name], expected[name])}"
        for name in expected
        if name in found and not _is_same(found[name], expected[name])
    ]
    lines += [f"{name}: missing" for name in expected if name not in found]
    unexpected = {name: value for name, value in found.items() if name not in expected}
    return lines + [f"{name}: not expected, {_shown(v)}" for name, v in unexpected.items()]


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(found, bytes) or isinstance(expected, bytes):
        return found == expected
    # As text: NaN equals NaN, 1 is not 1.0, and no digit of a float is left out.
    return json.dumps(found) == json.dumps(expected)


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, bytes) and isinstance(expected, bytes):
        if len(found) != len(expected):
            return f"{len(found):,} bytes, expected {len(expected):,}"
        count = sum(one != other for one, other in zip(found, expected, strict=True))
        return f"{count:,} of {len(expected):,} bytes differ"
    if isinstance(found, list) and isinstance(expected, list):
        pairs = list(zip(found, expected, strict=False))
        at = next((i for i, pair in enumerate(pairs) if not _is_same(*pair)), None)
        if at is None:
            return f"{len(found):,} records, expected {len(expected):,}"
        return f"record {at + 1:,} is {_shown(found[at])}, expected {_shown(expected[at])}"
    return f"{_shown(found)}, expected {_shown(expected)}"


def _shown(value: Any) -> str:
    text = f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
