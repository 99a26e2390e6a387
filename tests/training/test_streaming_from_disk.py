"""Training on examples on disk: the same bytes as in memory, however it is cut or interrupted."""

import dataclasses

import numpy as np
import pytest
import small_runs as small

from kerastrain.data.source import Examples
from kerastrain.data.stored import ExamplesWriter
from kerastrain.training.evaluation import Evaluator
from kerastrain.training.executor import Executor
from kerastrain.training.placement import StreamedFromDisk
from kerastrain.training.steps import supervised_step

ROWS = 1003


def stored(folder, examples, *, block_rows=20, window_blocks=4):
    with ExamplesWriter(folder, block_rows=block_rows, window_blocks=window_blocks) as writer:
        writer.append(examples)
        return writer.finish()


@dataclasses.dataclass(frozen=True)
class InMemoryInTheOrderOf(Examples):
    """Examples whose order is that of others."""

    other: object = None

    def order(self, *, seed, epoch):
        return self.other.order(seed=seed, epoch=epoch)


def executor_of(examples, **settings):
    state = small.state_of(small.classifier(dropout=0.3), examples)
    executor = Executor(state, supervised_step, examples, batch_size=32, seed=7, **settings)
    return state, executor


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    examples = small.blobs(ROWS, weights=True)
    found = stored(tmp_path_factory.mktemp("stored"), examples)
    return found, InMemoryInTheOrderOf(*examples.structure(), other=found)


@pytest.mark.parametrize(
    ("batches_in_a_chunk", "jit"), [(1, False), (5, False), (64, False), (5, True)]
)
def test_the_bytes_are_those_of_the_same_rows_in_memory(on_disk, batches_in_a_chunk, jit):
    found, in_memory = on_disk
    row_bytes = found.nbytes // len(found)
    snapshots = []
    for examples in (in_memory, found):
        budget = None if examples is in_memory else batches_in_a_chunk * 32 * row_bytes * 4
        state, executor = executor_of(examples, budget_bytes=budget)
        # Over two ends of epochs and many of windows; 32 steps make an epoch.
        for first, count in ((0, 1), (1, 20), (21, 50)):
            executor.run(first, count, jit=jit)
        snapshots.append(state.snapshot())
    assert isinstance(executor.place, StreamedFromDisk)
    assert executor.place.max_rows == batches_in_a_chunk * 32
    assert small.same(*snapshots)


def test_a_run_resumed_in_the_middle_of_a_window_goes_on_as_one_that_was_not(on_disk):
    found, _ = on_disk
    whole, executor = executor_of(found)
    executor.run(0, 40, jit=False)
    first, executor = executor_of(found)
    executor.run(0, 33, jit=False)
    resumed, executor = executor_of(found)
    resumed.assign(first.snapshot())
    executor.run(33, 7, jit=False)
    assert small.same(whole.snapshot(), resumed.snapshot())


def test_an_evaluation_on_disk_gives_the_metrics_of_one_in_memory(on_disk):
    found, in_memory = on_disk
    state = small.state_of(small.classifier(), in_memory)
    of_memory, of_disk = (Evaluator(state, each, batch_size=100) for each in (in_memory, found))
    assert of_memory(jit=False) == of_disk(jit=False)


def test_every_step_may_have_all_examples(tmp_path):
    examples = small.blobs(200)
    found = stored(tmp_path, examples)
    state = small.state_of(small.classifier(), examples)
    executor = Executor(state, supervised_step, found, batch_size=len(found), seed=0)
    before = state.snapshot()
    assert executor.run(0, 2, jit=False) is None
    assert not small.same(before, state.snapshot())
    assert np.isfinite(float(state.model.get_metrics_result()["loss"]))
