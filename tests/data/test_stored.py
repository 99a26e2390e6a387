"""Examples on disk: what was written is what is read, and what is unfinished is not read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.data.source import Data, Examples
from kerastrain.data.stored import ExamplesWriter, StoredExamples
from kerastrain.errors import DataError


def examples(rows=103, *, weights=False):
    rng = np.random.default_rng(rows)
    inputs = rng.normal(size=(rows, 3)).astype(np.float32)
    targets = rng.integers(0, 5, rows)
    return Examples(inputs, targets, rng.random(rows, np.float32) if weights else None)


def named_examples(rows=50):
    images = np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2)
    flags = np.arange(rows) % 2 == 0
    return Examples({"image": images, "b": flags}, np.arange(rows, dtype=">i4"))


def stored(folder, whole, *, pieces=3, **sizes):
    with ExamplesWriter(folder, **{"block_rows": 16, "window_blocks": 2, **sizes}) as writer:
        for rows in np.array_split(np.arange(len(whole)), pieces):
            writer.append(whole.take(rows))
        return writer.finish()


def assert_equal(a, b):
    for (name, left), (other, right) in zip(a.named_arrays(), b.named_arrays(), strict=True):
        assert name == other
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
        assert left.dtype == right.dtype.newbyteorder("<")


@pytest.mark.parametrize(
    "whole", [examples(), examples(weights=True), named_examples(), examples(1)]
)
def test_rows_are_read_back_as_they_were_written(tmp_path, whole):
    found = stored(tmp_path, whole, pieces=min(3, len(whole)))
    assert len(found) == len(whole) and found.nbytes == whole.nbytes
    assert_equal(found, whole)
    assert_equal(StoredExamples.open(tmp_path), whole)
    assert found.targets.shape == whole.targets.shape


def test_blocks_are_all_rows_in_order(tmp_path):
    whole = examples(weights=True)
    firsts, blocks = zip(*stored(tmp_path, whole).blocks(), strict=True)
    assert firsts == (0, 16, 32, 48, 64, 80, 96) and len(blocks[-1]) == 7
    np.testing.assert_array_equal(np.concatenate([b.inputs for b in blocks]), whole.inputs)
    np.testing.assert_array_equal(np.concatenate([b.weights for b in blocks]), whole.weights)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    whole = examples(weights=True)
    return whole, stored(tmp_path_factory.mktemp("stored"), whole)


@given(rows=st.lists(st.integers(0, 102), max_size=60))
def test_any_rows_can_be_taken_in_any_order(pair, rows):
    whole, found = pair
    if not rows:
        return
    assert_equal(found.take(np.array(rows)), whole.take(np.array(rows)))
    np.testing.assert_array_equal(found.inputs[rows], whole.inputs[rows])


def test_arrays_are_indexed_as_numpys(pair):
    whole, found = pair
    for rows in (slice(None), slice(5, 40), slice(90, 500), slice(40, 2, -7), 7, [3, 3, 102], []):
        np.testing.assert_array_equal(found.inputs[rows], whole.inputs[rows])
    assert (found.inputs.shape, found.inputs.ndim) == ((103, 3), 2)
    assert np.max(found.targets) == np.max(whole.targets)
    with pytest.raises(IndexError, match="103"):
        found.targets[103]


def test_how_it_was_cut_does_not_matter_to_the_fingerprint_and_every_byte_does(tmp_path):
    whole = examples()
    first = stored(tmp_path / "a", whole).fingerprint()
    assert stored(tmp_path / "b", whole, pieces=50).fingerprint() == first
    assert StoredExamples.open(tmp_path / "a").fingerprint() == first
    # Another size of blocks is another order.
    assert stored(tmp_path / "c", whole, block_rows=32).fingerprint() != first
    whole.inputs[50, 1] += 1
    other = stored(tmp_path / "d", whole)
    assert other.fingerprint() != first
    assert Data(train=other).fingerprint() != Data(train=whole).fingerprint()


def test_an_order_keeps_to_the_window_that_it_is_in(pair):
    _, found = pair
    order = found.order(seed=0, epoch=1).numpy()
    assert sorted(order) == list(range(103))
    assert len(set(order[:32] // 16)) <= 3


def test_sizes_of_blocks_follow_the_size_of_a_row(tmp_path):
    narrow = stored(tmp_path / "a", examples(), block_rows=None, window_blocks=None)
    assert narrow.block_rows == 32768 and narrow.window_blocks == 32
    wide = Examples(np.zeros((3, 1 << 20), np.float32), np.zeros(3))
    wide = stored(tmp_path / "b", wide, block_rows=None, window_blocks=None)
    assert wide.block_rows == 1 and wide.window_blocks == 23


def test_what_was_not_finished_is_no_examples(tmp_path):
    with ExamplesWriter(tmp_path / "new") as writer:
        writer.append(examples())
    with pytest.raises(DataError, match="no finished examples"):
        StoredExamples.open(tmp_path / "new")
    stored(tmp_path / "old", examples())
    ExamplesWriter(tmp_path / "old")
    with pytest.raises(DataError, match="no finished examples"):
        StoredExamples.open(tmp_path / "old")


def test_who_reads_the_old_rows_is_not_disturbed_by_new_ones(tmp_path):
    whole = examples()
    old = stored(tmp_path, whole)
    stored(tmp_path, examples(500))
    assert_equal(old, whole)


def test_a_file_that_was_changed_is_named(tmp_path):
    found = stored(tmp_path, examples())
    path = tmp_path / "array-0.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"array-0.bin' has 1,231 bytes; expected 1,236"):
        StoredExamples.open(tmp_path)
    with pytest.raises(DataError, match="ends within row 102 of 103"):
        found.inputs[102]
    path.unlink()
    with pytest.raises(DataError, match="has 0 bytes"):
        StoredExamples.open(tmp_path)


def test_another_format_is_refused(tmp_path):
    stored(tmp_path, examples())
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "format": 2}))
    with pytest.raises(DataError, match="of format 2; expected 1"):
        StoredExamples.open(tmp_path)


def test_pieces_that_differ_and_texts_and_nothing_are_refused(tmp_path):
    writer = ExamplesWriter(tmp_path)
    with pytest.raises(DataError, match="no rows"):
        writer.finish()
    writer.append(examples())
    with pytest.raises(DataError, match=r"weights float32 \[n\]; expected inputs float32 \[n, 3\]"):
        writer.append(examples(weights=True))
    with pytest.raises(DataError, match=r"inputs float64 \[n, 3\], .*expected inputs float32"):
        writer.append(Examples(np.zeros((2, 3)), np.zeros(2, np.int64)))
    with pytest.raises(DataError, match="targets is an array of <U1; only numbers"):
        ExamplesWriter(tmp_path / "b").append(Examples(np.zeros(1), np.array(["a"])))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/rows' cannot be written: Not a directory"):
        ExamplesWriter(tmp_path / "file" / "rows")
    writer = ExamplesWriter(tmp_path / "full")
    (tmp_path / "full" / "array-0.bin").mkdir()
    with pytest.raises(DataError, match=r"array-0.bin' cannot be written"):
        writer.append(examples())


def test_a_flipped_bit_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("kerastrain.data.stored.VERIFIED_BYTES", 100)
    found = stored(tmp_path, named_examples())
    found.verify()
    path = tmp_path / "array-0.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"array-0\.bin' \(inputs\[.*\) has the SHA-256 .* again"):
        StoredExamples.open(tmp_path).verify()
