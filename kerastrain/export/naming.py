"""Signature inputs under the columns' own names ("hours-per-week", "Median income", "class").

    traced = traced_names(["age", "per-week"])   # {"age": "age", "per-week": "column_1"}
    tf.saved_model.save(…)                       # a function of age and column_1
    rewrite_signatures(folder, traced, {})       # a signature of age and per-week
    signature_inputs(folder)                     # {"age": TensorSpec, "per-week": TensorSpec}

TensorFlow takes the names of a signature from those of a Python function's
arguments: it rewrites "hours-per-week" to "hours_per_week" without a word, and
fails on a space, an umlaut, `class`, or on "a" beside "A". The SavedModel
format itself takes any text, and TensorFlow Serving reads only that.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

# write_fingerprint has no public name; the file would otherwise describe the graph before.
from tensorflow.python.saved_model import fingerprinting_utils

from kerastrain.errors import ExportError


def traced_names(names: Iterable[str]) -> dict[str, str]:
    """A name that TensorFlow keeps as it is, for each of `names`; the same where it can be.

    Raises:
        ExportError: a name is empty or "self", or two become one when everything
            but letters and digits is replaced: TensorFlow's own Python loader,
            unlike its server, could not tell them apart.
    """
    names = list(names)
    known = [_loader_name(name) for name in names]
    for name, own in zip(names, known, strict=True):
        if name in ("", "self") or known.count(own) > 1:
            raise ExportError(
                f"The inputs are named {', '.join(map(repr, names))}; {name!r} cannot be served. "
                "Expected names that are not empty, not 'self', and differ in letters or digits. "
                "Rename the columns."
            )
    lowered = [name.lower() for name in names]
    taken, traced = set(lowered), {}
    for index, name in enumerate(names):
        if _is_kept(name) and lowered.count(name.lower()) == 1:
            traced[name] = name
            continue
        replacement = f"column_{index}"
        while replacement in taken:
            replacement += "_"
        traced[name] = replacement
    return traced


def signature_inputs(folder: Path, signature: str = "serving_default") -> dict[str, tf.TensorSpec]:
    """A signature's inputs as servers read them: name -> shape and dtype; empty without one."""
    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    return {
        name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), name=name)
        for name, info in graph.signature_def[signature].inputs.items()
    }


def _loader_name(name: str) -> str:
    """What TensorFlow's Python loader makes of an input's name."""
    return ("" if name[:1].isalpha() else "arg_") + re.sub(r"\W", "_", name)


def _is_kept(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)) and not keyword.iskeyword(name)


def rewrite_signatures(folder: Path, traced: Mapping[str, str], methods: Mapping[str, str]) -> None:
    """Puts the inputs' own names, and methods by signature, into the SavedModel in `folder`."""
    own = {replacement: name for name, replacement in traced.items() if name != replacement}
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved_model.meta_graphs[0]
    if not own and not set(methods) & set(graph.signature_def):
        return
    for name, signature in graph.signature_def.items():
        _rename_keys(signature.inputs, own)
        signature.method_name = methods.get(name, signature.method_name)
    for node in graph.object_graph_def.nodes:
        # What the function loaded in Python takes its inputs by. Its structured_input_signature
        # keeps the traced names: TensorFlow checks those for being Python's when it loads.
        if node.WhichOneof("kind") == "bare_concrete_function":
            bare = node.bare_concrete_function
            bare.argument_keywords[:] = [own.get(name, name) for name in bare.argument_keywords]
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink()
    fingerprinting_utils.write_fingerprint(str(folder))


def _rename_keys(fields: MutableMapping[str, Any], own: Mapping[str, str]) -> None:
    """Renames keys of a protobuf map of messages."""
    for old, new in own.items():
        if old in fields:
            fields[new].CopyFrom(fields[old])
            del fields[old]
