"""MNIST-like images: found in the order promised, read exactly, refused clearly."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerastrain import Classification, TrainOptions
from kerastrain.data.image_files import IDX_NAMES, NPZ_KEYS, read_idx, read_npz
from kerastrain.data.images import load_image_data
from kerastrain.errors import DataError, OptionsError

REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def make_arrays(train=240, test=40):
    """In the order of NPZ_KEYS; the same images and labels every time."""
    random = np.random.default_rng(0)
    parts = []
    for count in (train, test):
        parts.append(random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        parts.append((np.arange(count) % 10).astype(np.uint8))
    return parts


def write_idx(folder, arrays=None, *, end="", dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(IDX_NAMES, arrays or make_arrays(), strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        content = idx_bytes(array)
        (folder / (name + end)).write_bytes(gzip.compress(content) if end == ".gz" else content)
    return folder


def write_npz(path, **changed):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{**dict(zip(NPZ_KEYS, make_arrays(), strict=True)), **changed})
    return path


def load(path, name="mnist", **options):
    return load_image_data(name, TrainOptions(data_dir=str(path), **options))


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty cache of Keras's, and a download that fails as without a network."""
    import keras

    def unreachable():
        raise OSError("Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for dataset in (keras.datasets.mnist, keras.datasets.fashion_mnist):
        monkeypatch.setattr(dataset, "load_data", unreachable)
    return tmp_path / "keras"


# Real data


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="MNIST is not here")
def test_mnist_is_read_alike_from_idx_files_and_from_an_npz():
    idx = load(REAL_DATA / "mnist", seed=3)
    npz = load(REAL_DATA / "mnist" / "mnist.npz", seed=3)
    assert idx.fingerprint() == npz.fingerprint()
    assert idx.train.inputs.shape == (55_000, 28, 28)
    assert idx.train.inputs.dtype == np.uint8
    assert idx.train.targets.dtype == np.int32
    assert (len(idx.validation), len(idx.test)) == (5_000, 10_000)
    assert idx.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(idx.test.targets).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip


@pytest.mark.skipif(not (REAL_DATA / "fashion_mnist").is_dir(), reason="Fashion-MNIST is not here")
def test_fashion_mnist_has_named_classes_in_equal_numbers():
    data = load(REAL_DATA / "fashion_mnist", name="fashion_mnist")
    assert data.task.classes[9] == "Ankle boot"
    assert np.bincount(data.validation.targets).tolist() == [500] * 10
    assert data.description["rows"] == {"train": 55_000, "validation": 5_000, "test": 10_000}


# What is found, and where


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx_files_are_found_in_every_common_spelling(tmp_path, end, dotted):
    data = load(write_idx(tmp_path, end=end, dotted=dotted))
    assert (len(data.train), len(data.validation), len(data.test)) == (220, 20, 40)
    assert data.task == Classification(tuple(range(10)))


def test_a_gzipped_file_is_known_by_its_content_not_its_name(tmp_path):
    for name, array in zip(IDX_NAMES, make_arrays(), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx_bytes(array)))
    assert len(load(tmp_path).test) == 40


def test_the_npz_named_after_the_data_set_is_preferred(tmp_path):
    write_npz(tmp_path / "fashion_mnist.npz")
    write_npz(tmp_path / "other.npz", x_train=np.zeros(3))
    data = load(tmp_path, name="fashion_mnist")
    assert data.description["source"] == str(tmp_path / "fashion_mnist.npz")
    with pytest.raises(DataError, match=r"not clear: name it mnist\.npz"):
        load(tmp_path, name="mnist")


def test_a_single_npz_of_any_name_will_do(tmp_path):
    assert len(load(write_npz(tmp_path / "digits.npz").parent).train) == 220


def test_split_rows_say_where_every_example_comes_from(tmp_path):
    images, labels, test_images, _ = make_arrays()
    data = load(write_idx(tmp_path), seed=4)
    source = np.concatenate([images, test_images])
    for name, rows in data.split_rows.items():
        assert np.array_equal(source[rows], getattr(data, name).inputs)
    every_row = np.sort(np.concatenate(list(data.split_rows.values())))
    assert np.array_equal(every_row, np.arange(280))
    assert np.bincount(labels[data.split_rows["validation"]]).tolist() == [2] * 10


def test_the_seed_draws_the_validation_split(tmp_path):
    write_idx(tmp_path)
    assert load(tmp_path, seed=1).fingerprint() == load(tmp_path, seed=1).fingerprint()
    assert load(tmp_path, seed=1).fingerprint() != load(tmp_path, seed=2).fingerprint()


def test_the_cache_of_keras_is_used_when_no_folder_is_given(keras_home):
    path = write_npz(keras_home / "datasets" / "mnist.npz")
    folder = write_idx(keras_home / "datasets" / "fashion-mnist", end=".gz")
    mnist = load_image_data("mnist", TrainOptions())
    fashion = load_image_data("fashion_mnist", TrainOptions())
    assert mnist.description["source"] == str(path)
    assert fashion.description["source"] == str(folder)


def test_a_download_is_the_last_resort_and_leaves_the_output_clean(keras_home, monkeypatch, capsys):
    import keras

    def download():
        print("Downloading ======> 100%")
        images, labels, test_images, test_labels = make_arrays()
        return (images, labels), (test_images, test_labels)

    monkeypatch.setattr(keras.datasets.mnist, "load_data", download)
    data = load_image_data("mnist", TrainOptions())
    assert len(data.test) == 40
    assert data.description["source"] == "keras.datasets.mnist"
    assert capsys.readouterr().out == ""


def test_when_nothing_works_the_error_names_all_three_and_the_bundled_data(keras_home):
    with pytest.raises(DataError) as error:
        load_image_data("fashion_mnist", TrainOptions())
    message = str(error.value)
    assert "--data_dir: not given" in message
    assert f"cache: {keras_home / 'datasets' / 'fashion-mnist'} is not there" in message
    assert "download: Name or service not known" in message
    assert "--recipe=digits" in message


def test_without_a_network_the_real_download_fails_cleanly(tmp_path):
    program = (
        "from kerastrain import TrainOptions, KerastrainError\n"
        "from kerastrain.data.images import load_image_data\n"
        "try: load_image_data('mnist', TrainOptions())\n"
        "except KerastrainError as error: print(error)\n"
    )
    # A proxy that nobody answers at: the request itself is the real one.
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **proxies, "KERAS_HOME": str(tmp_path), "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The mnist images were not found:")
    assert "download: URL fetch failure" in done.stdout
    assert "=>" not in done.stdout


def test_a_damaged_cache_is_named_and_left_as_it_is(keras_home):
    path = write_npz(keras_home / "datasets" / "mnist.npz")
    damaged = path.read_bytes()[:5000]
    path.write_bytes(damaged)
    with pytest.raises(DataError) as error:
        load_image_data("mnist", TrainOptions())
    assert f"'{path}' is not an npz" in str(error.value)
    assert "remove it to have it downloaded" in str(error.value)
    assert path.read_bytes() == damaged


def test_a_given_folder_without_the_data_is_an_error_and_not_a_reason_to_look_elsewhere(
    tmp_path, keras_home
):
    write_npz(keras_home / "datasets" / "mnist.npz")
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"found notes\.txt\..*--recipe=digits"):
        load(folder)


def test_the_missing_ones_of_the_four_files_are_named(tmp_path):
    write_idx(tmp_path, end=".gz")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="Of the four idx files t10k-labels-idx1-ubyte is missing"):
        load(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_folder_that_the_system_refuses_is_an_error_of_the_user(tmp_path):
    with pytest.raises(DataError, match="cannot be looked into: File name too long"):
        load(tmp_path / ("x" * 300))


def test_an_unknown_data_set_is_refused_with_a_suggestion():
    with pytest.raises(OptionsError, match="Did you mean 'fashion_mnist'"):
        load_image_data("fashion-mnist", TrainOptions())


# Bad files


def replace_idx(folder, name, content):
    write_idx(folder)
    (folder / name).write_bytes(content)
    return folder


def test_a_truncated_idx_file_is_named_with_what_is_missing(tmp_path):
    content = idx_bytes(make_arrays()[0])
    replace_idx(tmp_path, "train-images-idx3-ubyte", content[:1000])
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert "train-images-idx3-ubyte' ends after 1,000 bytes; expected 188,176" in str(error.value)


def test_an_idx_file_with_something_behind_it_is_refused(tmp_path):
    content = idx_bytes(make_arrays()[1])
    replace_idx(tmp_path, "train-labels-idx1-ubyte", content + b"x")
    with pytest.raises(DataError, match="goes on to 249 bytes; expected 248"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing: it is empty"),
        (b"\x00\x00", "starts with 00 00; expected 00 00 08 03"),
        (b"<html>Not found</html>", "starts with 3c 68 74 6d; expected 00 00 08 03"),
        (b"\x00\x00\x0d\x03" + bytes(12), "starts with 00 00 0d 03; expected 00 00 08 03"),
        (b"\x00\x00\x08\x03\x00\x00", "ends after 6 bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "ends after 16 bytes"),
    ],
)
def test_a_foreign_file_in_place_of_the_images_is_named(tmp_path, content, said):
    replace_idx(tmp_path, "t10k-images-idx3-ubyte", content)
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte") as error:
        load(tmp_path)
    assert said in str(error.value)


def test_labels_in_place_of_images_are_noticed(tmp_path):
    replace_idx(tmp_path, "train-images-idx3-ubyte", idx_bytes(make_arrays()[1]))
    with pytest.raises(DataError, match="starts with 00 00 08 01; expected 00 00 08 03"):
        load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-5000], lambda c: c + b"garbage", lambda c: c[:99] + bytes(9) + c[108:]]
)
def test_a_damaged_gz_file_is_named(tmp_path, damage):
    content = gzip.compress(idx_bytes(make_arrays()[0]))
    replace_idx(tmp_path, "train-images-idx3-ubyte", damage(content))
    with pytest.raises(DataError, match="train-images-idx3-ubyte' .* cannot be unpacked by gzip"):
        load(tmp_path)


CHANGES = {
    "images of another size": (0, lambda a: a[:, :8, :8], r"\[240, 8, 8\]; expected .* 28 x 28"),
    "images with a channel": (0, lambda a: a[..., None], r"\[240, 28, 28, 1\]; expected"),
    "images scaled to 1": (0, lambda a: a / 255, r"float64 \[240, 28, 28\]; expected"),
    "no images": (0, lambda a: a[:0], r"\[0, 28, 28\]; expected"),
    "a label too high": (1, lambda a: a + np.uint8(1), "24 label.* the first 10 at row 9"),
    "a label below 0": (1, lambda a: a.astype(int) - 1, "24 label.* the first -1 at row 0"),
    "labels with fractions": (1, lambda a: a / 2, "float64 .240.; expected one whole number"),
    "one-hot labels": (1, lambda a: np.eye(10, dtype=int)[a], r"int64 \[240, 10\]; expected"),
    "labels as text": (1, lambda a: a.astype(str), "expected one whole number"),
    "fewer labels than images": (3, lambda a: a[:-1], "holds 40 images and .* 39 labels"),
    "a scalar": (2, lambda a: np.uint8(3), r"uint8 \[\]; expected"),
}


@pytest.mark.parametrize("change", CHANGES, ids=list(CHANGES))
def test_arrays_that_do_not_fit_are_named_with_what_was_expected(tmp_path, change):
    position, changed, said = CHANGES[change]
    key = NPZ_KEYS[position]
    path = write_npz(tmp_path / "mnist.npz", **{key: changed(make_arrays()[position])})
    with pytest.raises(DataError, match=said) as error:
        load(path)
    assert f"mnist.npz: {key}'" in str(error.value)


def test_idx_images_of_another_size_are_refused(tmp_path):
    small = idx_bytes(np.zeros((240, 14, 14), np.uint8))
    with pytest.raises(DataError, match=r"\[240, 14, 14\]; expected images of 28 x 28"):
        load(replace_idx(tmp_path, "train-images-idx3-ubyte", small))


def test_an_npz_without_the_four_arrays_says_what_it_holds(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, images=np.zeros(3), x_train=np.zeros(3))
    with pytest.raises(DataError, match=r"holds images, x_train; expected .*missing: y_train"):
        load(path)


def test_pickled_objects_in_an_npz_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = write_npz(tmp_path / "mnist.npz", y_train=np.array([Trap()] * 240, dtype=object))
    with pytest.raises(DataError, match="cannot be read as an npz of plain arrays"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mnist\.npz' is not an npz"):
        load(tmp_path)


def small_npz():
    file = io.BytesIO()
    arrays = make_arrays(train=3, test=2)
    np.savez_compressed(file, **dict(zip(NPZ_KEYS, (a // 64 for a in arrays), strict=True)))
    return file.getvalue()


SMALL_FILES = {
    "idx": idx_bytes(make_arrays()[1]),
    "gz": gzip.compress(idx_bytes(make_arrays()[1])),
    "npz": small_npz(),
}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(list(SMALL_FILES)),
    where=st.floats(0, 1, exclude_max=True),
    inserted=st.binary(max_size=6),
    removed=st.integers(0, 2000),
)
def test_no_damage_to_a_file_gives_anything_but_the_data_or_one_clear_error(
    tmp_path, kind, where, inserted, removed
):
    whole = SMALL_FILES[kind]
    position = int(where * len(whole))
    path = tmp_path / f"damaged.{kind}"
    path.write_bytes(whole[:position] + inserted + whole[position + removed :])
    try:
        if kind == "npz":
            read_npz(path)
        else:
            read_idx(path, dimensions=1)
    except DataError as error:
        assert str(path) in str(error)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_an_idx_file_gives_back_exactly_what_was_written(tmp_path_factory, shape, packed, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "values"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    assert np.array_equal(read_idx(path, dimensions=len(shape)), array)
