"""What training asks of data: examples in memory, by row number.

    Data(train=Examples(images, labels), validation=…, test=…, task=Classification((…)))

`Examples` are what the model is trained on, after any encoding done once for
the whole table. `Data.test_rows` is the test split as a client would send it
(raw named columns, strings included), for the checks of an export.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.errors import DataError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kerastrain.data.stored import StoredExamples
    from kerastrain.data.tables.encoded import EncodedColumns

Inputs = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Classification:
    """One class of `classes` is to be predicted; targets are int indices into it.

    `classes` holds the class's own values: strings ("<=50K") or integers (0 to 9). Of two,
    `positive` is the one that metrics such as average_precision are about; default: the last.

    Raises:
        DataError: `positive` is none of two classes.
    """

    classes: tuple[str, ...] | tuple[int, ...]
    positive: str | int | None = None

    def __post_init__(self) -> None:
        if self.positive is None and len(self.classes) == 2:
            object.__setattr__(self, "positive", self.classes[1])
        if self.positive is not None and (
            self.positive not in self.classes or len(self.classes) != 2
        ):
            raise DataError(
                f"The positive class is {self.positive!r}; expected one of two classes, and they "
                f"are {', '.join(map(repr, self.classes))}."
            )

    @property
    def positive_index(self) -> int | None:
        """The place of the positive class among the two."""
        return None if self.positive is None else self.classes.index(self.positive)


@dataclass(frozen=True)
class Regression:
    """A number is to be predicted, in the target's own units.

    With `quantiles` (rising, between 0 and 1) these quantiles of its distribution are, and
    the one nearest to 0.5 is what is predicted.
    """

    target: str = "target"
    quantiles: tuple[float, ...] = ()


Task = Classification | Regression


@dataclass(frozen=True)
class Examples:
    """Rows in memory.

    Attributes:
        inputs: array [n, ...], or a dict of such (for models with several inputs).
        targets: array [n, ...].
        weights: float32 [n], or None.
    """

    inputs: Inputs
    targets: np.ndarray
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.named_arrays()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"All arrays of a split need the same number of rows; got {shown}.")
        if len(self) == 0:
            raise DataError("A split of the data has no rows.")

    def named_arrays(self) -> list[tuple[str, np.ndarray]]:
        """Every array under a name, in a fixed order."""
        if isinstance(self.inputs, Mapping):
            named = [(f"inputs[{name}]", self.inputs[name]) for name in sorted(self.inputs)]
        else:
            named = [("inputs", self.inputs)]
        named.append(("targets", self.targets))
        if self.weights is not None:
            named.append(("weights", self.weights))
        return named

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for _, array in self.named_arrays())

    def structure(self) -> tuple[Any, ...]:
        """(inputs, targets) or (inputs, targets, weights): what Keras unpacks a batch into."""
        inputs = dict(self.inputs) if isinstance(self.inputs, Mapping) else self.inputs
        if self.weights is None:
            return (inputs, self.targets)
        return (inputs, self.targets, self.weights)

    def take(self, rows: np.ndarray) -> Examples:
        """The examples of the given row numbers (int array [k]), in that order."""
        if isinstance(self.inputs, Mapping):
            inputs: Inputs = {name: array[rows] for name, array in self.inputs.items()}
        else:
            inputs = self.inputs[rows]
        weights = None if self.weights is None else self.weights[rows]
        return Examples(inputs, self.targets[rows], weights)

    def blocks(self) -> Iterator[tuple[int, Examples]]:
        """All rows in pieces, (number of the first row, examples): in memory it is one piece."""
        yield 0, self

    def order(self, *, seed: int, epoch: int) -> tf.Tensor:
        """The order of an epoch, int32 [n]: `epoch_order`."""
        # TensorFlow is not needed to hold examples.
        from kerastrain.data.order import epoch_order

        return epoch_order(seed=seed, epoch=epoch, examples=len(self))

    def fingerprint(self) -> str:
        """A hash of names, dtypes, shapes and every byte: the same data, the same text."""
        digest = hashlib.sha256()
        for name, array in self.named_arrays():
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Data:
    """The splits of a data set, and what is known about it.

    Attributes:
        train, validation, test: examples as the model takes them; those to train on may be
            on disk (`kerastrain.data.stored`). Without validation the objective must be a
            training metric.
        task: what is predicted; None when a model of the user's own says nothing
            about it (its outputs are then exported under their own names).
        encoder: a keras.Model from raw named columns to the encoded inputs, put
            in front of the trained model at export; None when inputs are raw.
        test_rows: the test split as clients send it, {name: array [n]}, for data
            with an encoder. None: `test.inputs` are already that.
        validation_rows: the same of the validation split.
        columns: for an encoded table, what a network must know of its columns.
        split_rows: row numbers (of the source) of each split, recorded with the run.
        description: short facts for people and the manifest (source, counts, columns).
    """

    train: Examples | StoredExamples
    validation: Examples | None = None
    test: Examples | None = None
    task: Task | None = None
    encoder: keras.Model | None = None
    test_rows: Mapping[str, np.ndarray] | None = None
    validation_rows: Mapping[str, np.ndarray] | None = None
    columns: EncodedColumns | None = None
    split_rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """A hash over all splits; equal for equal data wherever they lie."""
        return joined_fingerprint(self.split_fingerprints())

    def split_fingerprints(self) -> dict[str, str]:
        """A hash of each split, "" of one that is not there."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: "" if s is None else s.fingerprint() for name, s in splits.items()}

    def with_encoder(self, encoder: keras.Model) -> Data:
        return dataclasses.replace(self, encoder=encoder)


def joined_fingerprint(splits: Mapping[str, str]) -> str:
    """The fingerprint of data, from those of all their splits."""
    return hashlib.sha256(";".join(splits.values()).encode()).hexdigest()
