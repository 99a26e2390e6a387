"""What a traced step reads and draws besides its arguments, and what of it cannot be kept.

    traced = executor.trace(jit=False)      # a tf.ConcreteFunction
    captured_variables(traced)              # whatever it reads or changes, in a fixed order
    unkept_state(traced)                    # ["RandomStandardNormal in 'vae/sampling', …"]

A resumed run repeats what an uninterrupted one does only if all that training changes is saved.
A variable can be. The state of an op that TensorFlow keeps to itself cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

# Ops that keep state where nobody can read it, by how their names begin -> what to use instead.
SEEDED = "keras.random with a keras.random.SeedGenerator"
IN_VARIABLE = "a variable (add_weight)"
IN_DATA = "examples of the run's own data, which are drawn by their numbers"
INSTEAD = {
    **dict.fromkeys(("Random", "TruncatedNormal", "ParameterizedTruncatedNormal"), SEEDED),
    **dict.fromkeys(("Multinomial", "SampleDistortedBoundingBox"), SEEDED),
    **dict.fromkeys(("FractionalMaxPool", "FractionalAvgPool"), SEEDED),
    **dict.fromkeys(("LookupTableInsert", "LookupTableImport", "LookupTableRemove"), IN_VARIABLE),
    **dict.fromkeys(("StackPop", "QueueDequeue", "BarrierTakeMany"), IN_VARIABLE),
    "IteratorGetNext": IN_DATA,
}
CANDIDATE_SAMPLER = "CandidateSampler"
PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")
OURS = str(Path(__file__).parents[1])
LIBRARIES = tuple(str(Path(package.__file__).parent) for package in (tf, keras)) + (OURS,)


def captured_variables(traced: Any) -> list[tf.Variable]:
    """Return the raw variables that a concrete function reads or changes, as it meets them."""
    by_handle = {id(variable.handle): variable for variable in traced.graph.variables}
    return [by_handle[id(t)] for t in traced.captured_inputs if id(t) in by_handle]


def unkept_state(traced: Any) -> list[str]:
    """Return a line for each op whose state cannot be saved: which, where, and what to use."""
    found = ((op, _instead_of(op.type)) for op in _ops(traced))
    return sorted({f"{_where(op)}; use {instead}" for op, instead in found if instead})


def calls_python(traced: Any) -> list[str]:
    """Return where Python is called from the graph: what that changes nobody sees."""
    return sorted({_where(op) for op in _ops(traced) if op.type in PYTHON})


def _instead_of(kind: str) -> str | None:
    if kind.endswith("Grad"):
        return None
    if CANDIDATE_SAMPLER in kind:
        return SEEDED
    return next((instead for start, instead in INSTEAD.items() if kind.startswith(start)), None)


def _where(op: tf.Operation) -> str:
    """The op, the layer and the line of the user's from which it came."""
    scopes = [scope for scope in op.name.split("/")[:-1] if not scope.startswith(("while", "cond"))]
    layer = f" in '{'/'.join(scopes)}'" if scopes else ""
    frames = [f for f in reversed(op.traceback or []) if not f.filename.startswith(LIBRARIES)]
    line = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    return f"{op.type}{layer}{line}"


def _ops(traced: Any) -> Iterator[tf.Operation]:
    """All operations, those of the functions that are called included."""
    waiting, seen = [traced.graph], set()
    while waiting:
        graph = waiting.pop()
        if id(graph) not in seen:
            seen.add(id(graph))
            yield from graph.get_operations()
            waiting += [function.graph for function in graph._functions.values()]
