"""The formats that a version can hold: their names, files, runtimes and limits.

    chosen = parse_formats(["keras", "onnx"])     # ("savedmodel", "keras", "onnx")
    FORMATS["onnx"].file                          # "model.onnx"
    missing_packages(FORMATS["onnx"])             # [] when all of them can be imported

| name                  | file                       | asked by                                 |
| --------------------- | -------------------------- | ---------------------------------------- |
| `savedmodel`          | `saved_model.pb`, …        | TensorFlow; a version always holds it    |
| `keras`               | `model.keras`              | Keras                                    |
| `weights`             | `model.weights.h5`         | Keras, into the architecture             |
| `architecture`        | `model.json`               | Keras, without weights                   |
| `h5`                  | `model.h5`                 | Keras: its legacy format                 |
| `litert`              | `model.tflite`             | LiteRT, in float32                       |
| `litert_float16`      | `model_float16.tflite`     | LiteRT, weights in float16               |
| `litert_dynamic_int8` | `model_dynamic_int8.tflite`| LiteRT, weights in 8 bits                |
| `litert_int8`         | `model_int8.tflite`        | LiteRT, weights and activations in 8 bits|
| `onnx`                | `model.onnx`               | ONNX Runtime                             |
| `openvino`            | `openvino/model.xml`       | OpenVINO                                 |

The first two take raw rows. The others are the network itself: without an encoder that is the
same; behind one they take the arrays that `preprocessing.json` describes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from kerastrain.errors import ExportError, OptionsError, suggestion


@dataclass(frozen=True)
class Limits:
    """How far the answers of a format that rounds may be from the live model's.

    Attributes:
        probability: largest error of a probability.
        share: largest error of any other number, as a share of the range that the live
            model's answers span. Logits are not limited by themselves: their probabilities are.
        agreement: least share of rows with the live model's label.
    """

    probability: float
    share: float
    agreement: float


# Weights with 11 significant bits are wrong by at most 2^-12, and what is computed with them by
# a small multiple: on real models probabilities differ by 1e-4 to 2e-4. Fifty times as much
# means that something is wrong (numbers beyond float16's 65,504, for one). Two labels of 256
# may tip over.
FLOAT16 = Limits(probability=0.01, share=0.01, agreement=0.99)
# Weights with 8 bits, a scale for each channel: a relative error of 2^-8 at most. Labels mostly
# agree (99.75 % were measured on MNIST); accuracies differ by less than a point
# (Krishnamoorthi 2018, "Quantizing deep convolutional networks", table 2).
DYNAMIC_INT8 = Limits(probability=0.1, share=0.03, agreement=0.98)
# Activations too have 256 steps, between the least and the largest that the sample rows cause:
# published losses of accuracy are within 2 points (Jacob et al. 2018, "Quantization and Training
# of Neural Networks for Efficient Integer-Arithmetic-Only Inference", table 4.2). Features of
# very different sizes side by side, piecewise-linear ones for instance, share those steps badly;
# such models are refused here.
INT8 = Limits(probability=0.2, share=0.05, agreement=0.97)


@dataclass(frozen=True)
class Format:
    """A format that a version can hold.

    Attributes:
        name: as `--formats` takes it.
        file: in the version folder; its name stands for the format in `left_out`.
        runtime: "tensorflow", "keras", "litert", "onnx" or "openvino".
        also: further files that belong to it.
        limits: None: float32, whose answers must be the same (`kerastrain.export.comparison`).
        packages: what must be importable besides kerastrain's own requirements.
    """

    name: str
    file: str
    runtime: str
    also: tuple[str, ...] = ()
    limits: Limits | None = None
    packages: tuple[str, ...] = ()


SAVED_MODEL, KERAS = "savedmodel", "keras"
DEFAULT = (SAVED_MODEL, KERAS)
ALL = "all"
INSTALL = "pip install 'kerastrain[formats]'"
PREPROCESSING = "preprocessing.json"

_ALL = (
    Format(SAVED_MODEL, "saved_model.pb", "tensorflow"),
    Format(KERAS, "model.keras", "keras"),
    Format("weights", "model.weights.h5", "keras"),
    Format("architecture", "model.json", "keras"),
    Format("h5", "model.h5", "keras"),
    Format("litert", "model.tflite", "litert", packages=("ai_edge_litert",)),
    Format(
        "litert_float16",
        "model_float16.tflite",
        "litert",
        limits=FLOAT16,
        packages=("ai_edge_litert",),
    ),
    Format(
        "litert_dynamic_int8",
        "model_dynamic_int8.tflite",
        "litert",
        limits=DYNAMIC_INT8,
        packages=("ai_edge_litert",),
    ),
    Format("litert_int8", "model_int8.tflite", "litert", limits=INT8, packages=("ai_edge_litert",)),
    Format("onnx", "model.onnx", "onnx", packages=("tf2onnx", "onnx", "onnxruntime")),
    Format(
        "openvino",
        "openvino/model.xml",
        "openvino",
        also=("openvino/model.bin",),
        packages=("openvino",),
    ),
)
FORMATS = {one.name: one for one in _ALL}


def parse_formats(names: Iterable[str]) -> tuple[str, ...]:
    """The formats of these names, in the order of `FORMATS`; the SavedModel always among them.

    Raises:
        OptionsError: a name is unknown.
    """
    chosen = {name.strip().lower() for name in names if name.strip()}
    for name in sorted(chosen - {ALL}):
        if name not in FORMATS:
            raise OptionsError(
                f"There is no format '{name}'; those there are: {', '.join(FORMATS)}, or "
                f"{ALL}.{suggestion(name, [*FORMATS, ALL])}"
            )
    return tuple(name for name in FORMATS if ALL in chosen or name in {SAVED_MODEL, *chosen})


def missing_packages(one: Format) -> list[str]:
    """Those of a format's packages that are not installed."""
    return [name for name in one.packages if importlib.util.find_spec(name) is None]


def check_installed(names: Iterable[str]) -> None:
    """
    Raises:
        ExportError: a format takes a package that is not installed; the message says how.
    """
    lacking = {name: missing_packages(FORMATS[name]) for name in names}
    lacking = {name: packages for name, packages in lacking.items() if packages}
    if lacking:
        shown = "; ".join(f"{name} needs {', '.join(p)}" for name, p in lacking.items())
        raise ExportError(f"Packages are missing: {shown}. Install them: {INSTALL}")
