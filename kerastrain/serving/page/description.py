"""What the page must know of the models: versions with their states, and how to ask each.

    describe_models(models)["models"][0]
    # {"name": "titanic", "default": 2, "labels": {}, "versions": [{"version": 2, "state": …}]}

A version that answers is described by its signatures. Each has a kind, which says what the
page shows: "image" (a canvas), "table" (a form) or "other" (JSON). Lists instead of objects
wherever keys come from the user: a column may be called "__proto__".
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from kerastrain.serving.failures import ServingError
from kerastrain.serving.models import Models, VersionStatus
from kerastrain.serving.page.form import table_fields
from kerastrain.serving.servable import CLASSIFY, REGRESS, Servable, Signature, TensorInfo
from kerastrain.serving.versions import AVAILABLE

# Smaller than the smallest images that digits are drawn on, a matrix is no image.
SMALLEST_IMAGE = 8
LARGEST_IMAGE = 512
_METHODS = {CLASSIFY: "classify", REGRESS: "regress"}

# Every open page asks every other second; a version says the same until it is unloaded.
_described: weakref.WeakKeyDictionary[Servable, dict[str, Any]] = weakref.WeakKeyDictionary()


def describe_models(models: Models) -> dict[str, Any]:
    """All models, by name; what is described of a version is None while it does not answer."""
    labels = {spec.name: spec.labels for spec in models.specs}
    return {"models": [_model(models, name, labels[name]) for name in sorted(labels)]}


def _model(models: Models, name: str, labels: Mapping[str, int]) -> dict[str, Any]:
    try:
        statuses = models.statuses(name)
    except ServingError:  # its folder holds no version yet
        statuses = []
    available = [status.version for status in statuses if status.state == AVAILABLE]
    return {
        "name": name,
        "default": max(available, default=None),
        "labels": [[label, version] for label, version in sorted(labels.items())],
        "versions": [
            {
                "version": status.version,
                "state": status.state,
                "error_code": status.error_code,
                "error_message": status.error_message,
                "described": _version(models, name, status),
            }
            for status in statuses
        ],
    }


def _version(models: Models, name: str, status: VersionStatus) -> dict[str, Any] | None:
    if status.state != AVAILABLE:
        return None
    try:
        with models.use(name, status.version) as servable:
            if servable not in _described:
                _described[servable] = describe(servable)
            return _described[servable]
    except ServingError:  # gone since its status was read
        return None


def describe(servable: Servable) -> dict[str, Any]:
    """One version: its signatures, "serving_default" first, and what its answers mean."""
    manifest = servable.manifest or {}
    task = manifest.get("task") or {}
    names = sorted(servable.signatures, key=lambda name: (name != "serving_default", name))
    return {
        "signatures": [_signature(servable.signatures[name], name, manifest) for name in names],
        "classes": [str(value) for value in manifest.get("classes") or []],
        "quantiles": list(task.get("quantiles") or []),
        "target": _target(manifest),
        "about": _about(manifest),
    }


def _signature(signature: Signature, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "method": _METHODS.get(signature.method_name, "predict"),
        "kind": "other",
        "inputs": _tensors(signature.inputs),
        "outputs": _tensors(signature.outputs),
    }
    if found["method"] != "predict":
        return found
    image = _image(signature, manifest)
    if image:
        return found | {"kind": "image", "image": image}
    if signature.inputs and all(map(_is_column, signature.inputs.values())):
        return found | {"kind": "table", "fields": table_fields(signature, manifest)}
    return found


def _tensors(infos: Mapping[str, TensorInfo]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": info.dtype.name,
            "shape": None if info.shape is None else list(info.shape),
        }
        for name, info in infos.items()
    ]


def _is_column(info: TensorInfo) -> bool:
    # TensorFlow Serving takes the ending for binary content, which nobody types into a field.
    return info.shape == (None,) and not info.name.endswith("_bytes")


def _image(signature: Signature, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Height, width, channels (None: the input has no such dimension) and the largest value."""
    if len(signature.inputs) != 1:
        return None
    (info,) = signature.inputs.values()
    shape = tuple(info.shape or ())
    is_number = not (info.dtype.name in ("string", "bool") or "complex" in info.dtype.name)
    is_image = (
        is_number
        and len(shape) in (3, 4)
        and shape[0] is None
        and all(size and SMALLEST_IMAGE <= size <= LARGEST_IMAGE for size in shape[1:3])
        and shape[3:] in ((), (1,), (3,))
    )
    if not is_image:
        return None
    return {
        "height": shape[1],
        "width": shape[2],
        "channels": shape[3] if len(shape) == 4 else None,
        "maximum": _recorded_maximum(manifest),
    }


def _recorded_maximum(manifest: Mapping[str, Any]) -> float | None:
    """The white of the training images."""
    return (manifest.get("pixels") or {}).get("brightest")


def _target(manifest: Mapping[str, Any]) -> str:
    """The name of what is predicted; "" when nobody said."""
    data, task = manifest.get("data") or {}, manifest.get("task") or {}
    return str(data.get("target") or task.get("target") or "")


def _about(manifest: Mapping[str, Any]) -> list[list[Any]]:
    """What a person may want to know of the version, as [name, text or number] pairs."""
    named = {name: manifest[name] for name in ("recipe", "created") if manifest.get(name)}
    metrics = manifest.get("metrics") or {}
    return [[name, str(value)] for name, value in named.items()] + [
        [f"test {name}", value]
        for name, value in metrics.items()
        if isinstance(value, (int, float))
    ]
