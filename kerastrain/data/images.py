"""MNIST and Fashion-MNIST, wherever they are.

    data = load_image_data("mnist", options)   # --data_dir, then Keras's cache, then a download
    data.train.inputs     # uint8 [55000, 28, 28]
    data.split_rows       # which rows of the source train, validate and test

The published test part is the test split; validation is a stratified part of the
published training part, drawn by the seed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerastrain.data.image_files import (
    IDX_NAMES,
    NPZ_KEYS,
    ImageSet,
    checked_set,
    find_idx_files,
    read_idx_set,
    read_npz,
)
from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.splits import split_rows
from kerastrain.errors import DataError, OptionsError, suggestion
from kerastrain.options import TrainOptions

logger = logging.getLogger(__name__)

CLASSES: dict[str, tuple[str, ...] | tuple[int, ...]] = {
    "mnist": tuple(range(10)),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}

EXPECTED_FILES = (
    f"{', '.join(IDX_NAMES)} (each gzipped or not), or an npz with {', '.join(NPZ_KEYS)}"
)
# urllib waits without end by itself; a server that says nothing for so long is not there.
DOWNLOAD_TIMEOUT_SECONDS = 15.0


def load_image_data(
    name: str, options: TrainOptions, *, validation_fraction: float = 1 / 12
) -> Data:
    """MNIST or Fashion-MNIST, split.

    Args:
        name: "mnist" or "fashion_mnist".
        options: `data_dir`, when given, is the only place looked in; `seed` draws
            the validation split.
        validation_fraction: the share of the published training part that
            validates; 1/12 is 5,000 of 60,000 rows.

    Returns:
        Data with inputs uint8 [n, 28, 28], 0 to 255, and targets int32 [n], 0 to 9.
        `split_rows` number the training part and after it the test part (row 60,000
        is the first test image).

    Raises:
        OptionsError: there is no such data set.
        DataError: it was not found, or its files are damaged or foreign.
    """
    if name not in CLASSES:
        raise OptionsError(
            f"There is no image data set '{name}'; expected one of {', '.join(CLASSES)}."
            f"{suggestion(name, CLASSES)}"
        )
    if options.data_dir is None:
        image_set = _from_cache_or_download(name)
    else:
        try:
            image_set = read_data_dir(name, Path(options.data_dir).expanduser())
        except OSError as error:
            raise DataError(
                f"--data_dir={options.data_dir} cannot be looked into: {error.strerror}."
            ) from error
    return _split(name, image_set, seed=options.seed, validation_fraction=validation_fraction)


def _split(name: str, image_set: ImageSet, *, seed: int, validation_fraction: float) -> Data:
    published = len(image_set.train.labels)
    rows = split_rows(
        published,
        fractions={"train": 1 - validation_fraction, "validation": validation_fraction},
        seed=seed,
        labels=image_set.train.labels,
    )
    rows["test"] = np.arange(published, published + len(image_set.test.labels), dtype=np.int64)
    train = Examples(*image_set.train)
    counts = {split: len(numbers) for split, numbers in rows.items()}
    return Data(
        train=train.take(rows["train"]),
        validation=train.take(rows["validation"]),
        test=Examples(*image_set.test),
        task=Classification(CLASSES[name]),
        split_rows=rows,
        description={
            "data_set": name,
            "source": image_set.source,
            "rows": counts,
            "inputs": "uint8 [28, 28], 0 to 255",
            "classes": list(CLASSES[name]),
        },
    )


def read_data_dir(name: str, path: Path) -> ImageSet:
    """The set from a folder with the four idx files or an npz, or from an npz itself.

    Raises:
        DataError: neither is there, or what is there is damaged.
    """
    if path.is_file():
        return read_npz(path)
    if not path.is_dir():
        raise DataError(f"--data_dir={path} does not exist. {_advice(name)}")
    idx_files = find_idx_files(path)
    if len(idx_files) == len(IDX_NAMES):
        return read_idx_set(idx_files)
    archives = sorted(path.glob("*.npz"))
    preferred = [archive for archive in archives if archive.name == f"{name}.npz"] or archives
    if len(preferred) == 1:
        return read_npz(preferred[0])
    found = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "")
    raise DataError(
        f"--data_dir={path} does not hold the {name} images; found {shown or 'nothing'}."
        f"{_what_is_missing(name, set(idx_files), archives)} {_advice(name)}"
    )


def _what_is_missing(name: str, idx_names: set[str], archives: list[Path]) -> str:
    if idx_names:
        missing = [idx_name for idx_name in IDX_NAMES if idx_name not in idx_names]
        return f" Of the four idx files {', '.join(missing)} is missing."
    if archives:
        return f" Which npz is meant is not clear: name it {name}.npz, or give its path."
    return ""


def _advice(name: str) -> str:
    return (
        f"Give --data_dir=FOLDER with {EXPECTED_FILES}; leave --data_dir out to have {name} "
        "looked for in Keras's cache and downloaded; or train on images that come with the "
        "package: --recipe=digits."
    )


def _from_cache_or_download(name: str) -> ImageSet:
    """Keras's cache, then a download into it.

    Raises:
        DataError: neither worked; what happened to each is said.
    """
    cache = keras_cache(name)
    try:
        cached = _read_cache(cache)
    except (DataError, OSError) as error:
        # keras.datasets would use the damaged file, or delete it: that is the user's to decide.
        raise DataError(
            _nowhere(
                name,
                cache=str(error),
                download=f"not tried while {cache} is unusable; remove it to have it downloaded",
            )
        ) from error
    if cached is not None:
        return cached
    logger.info("Downloading %s to %s …", name, cache)
    try:
        return _download(name)
    except Exception as error:  # any failure of network, disk or server: all end the same way
        raise DataError(
            _nowhere(name, cache=f"{cache} is not there", download=f"{error}")
        ) from error


def _nowhere(name: str, *, cache: str, download: str) -> str:
    return (
        f"The {name} images were not found:\n"
        f"  --data_dir: not given\n"
        f"  Keras's cache: {cache}\n"
        f"  download: {download}\n"
        f"Give --data_dir=FOLDER with {EXPECTED_FILES}; or train on images that come with the "
        "package: --recipe=digits."
    )


def keras_cache(name: str) -> Path:
    """Where `keras.datasets` keeps the set: mnist.npz, or the folder of Fashion-MNIST's files."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    return home / "datasets" / ("mnist.npz" if name == "mnist" else "fashion-mnist")


def _read_cache(cache: Path) -> ImageSet | None:
    """The set, or None when nothing (or only some of four files) is there."""
    if cache.is_file():
        return read_npz(cache)
    files = find_idx_files(cache)
    return read_idx_set(files) if len(files) == len(IDX_NAMES) else None


def _download(name: str) -> ImageSet:
    import keras

    dataset = getattr(keras.datasets, name)
    # Its progress bar writes thousands of characters to stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()), _timeout(DOWNLOAD_TIMEOUT_SECONDS):
        train, test = dataset.load_data()
    url = f"keras.datasets.{name}"
    return checked_set([*train, *test], names=[f"{url}: {key}" for key in NPZ_KEYS], source=url)


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Sockets opened meanwhile give up after so long (Keras has no argument for it)."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
