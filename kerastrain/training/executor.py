"""How steps are run: compiled, many in one call, with XLA or without.

    executor = Executor(state, step, examples, batch_size=128, seed=0)
    first_bad = executor.run(first_step=0, count=500, jit=True)   # None: all losses finite

A call of the compiled chunk runs any number of steps of one epoch in a
loop on the device. Where an epoch's examples do not divide into batches, the last
step of the epoch gets the rest as a smaller batch (compiled by itself, never by XLA).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import DataError
from kerastrain.training.placement import placed
from kerastrain.training.randomness import random_algorithm
from kerastrain.training.state import TrainState
from kerastrain.training.steps import StepFunction
from kerastrain.training.strategy import first_device

# The least positive number of float16.
SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one epoch with batches of one size."""

    epoch: int
    first_step: int
    first_row: int
    steps: int
    batch_size: int


@dataclass(frozen=True)
class Batches:
    """How an epoch divides into steps.

    Attributes:
        examples: rows in an epoch.
        batch_size: of a full step, over all replicas.
        remainder: size of the last step's batch, 0 when all are full.
    """

    examples: int
    batch_size: int
    remainder: int

    @classmethod
    def of(cls, *, examples: int, batch_size: int, replicas: int = 1) -> Batches:
        """Divides; over replicas each step must divide by their number.

        The fewer than `replicas` rows that cannot be dealt out evenly in an epoch are
        other ones in each epoch.

        Raises:
            DataError: fewer examples than replicas.
        """
        size = min(batch_size, examples) // replicas * replicas
        if size == 0:
            raise DataError(
                f"{min(batch_size, examples)} examples in a step cannot be dealt to {replicas} "
                "replicas; give a larger --batch_size."
            )
        return cls(examples, size, examples % size // replicas * replicas)

    @property
    def steps_per_epoch(self) -> int:
        return self.examples // self.batch_size + (1 if self.remainder else 0)

    def segments(self, first_step: int, count: int) -> Iterator[Segment]:
        """Divides global steps first_step … first_step + count - 1 at epochs and remainders."""
        full = self.examples // self.batch_size
        step, end = first_step, first_step + count
        while step < end:
            epoch, at = divmod(step, self.steps_per_epoch)
            is_remainder = at == full
            steps = 1 if is_remainder else min(end - step, full - at)
            size = self.remainder if is_remainder else self.batch_size
            yield Segment(epoch, step, at * self.batch_size, steps, size)
            step += steps


class Executor:
    """Runs steps of one state over one set of examples."""

    def __init__(
        self,
        state: TrainState,
        step: StepFunction,
        examples: Examples | StoredExamples,
        *,
        batch_size: int,
        seed: int,
        budget_bytes: int | None = None,
    ):
        """`budget_bytes`: how much of the examples may stay on the device; None: measured."""
        self.batches = Batches.of(
            examples=len(examples), batch_size=batch_size, replicas=state.replicas
        )
        self._state = state
        self._step = step
        self._epoch_order = examples.order
        self._seed = seed
        device = first_device(state.strategy)
        self.place = placed(
            examples,
            device=device,
            batch_size=self.batches.batch_size,
            budget_bytes=budget_bytes,
        )
        self._on_cpu = "CPU" in device.upper()
        self._chunks: dict[tuple[int, bool], Any] = {}
        self._orders: dict[int, Future[tf.Tensor]] = {}
        # The next epoch's order is computed beside the training.
        self._ordering = ThreadPoolExecutor(1, thread_name_prefix="order")

    def run(self, first_step: int, count: int, *, jit: bool) -> int | None:
        """Runs `count` steps from the global step `first_step` on.

        Returns:
            None, or the first global step whose loss was not finite. With loss scaling see
            `_is_harm`.
        """
        pieces = list(self._pieces(first_step, count))
        first_bad: int | None = None
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            bad = self._run_piece(piece, following, jit=jit)
            first_bad = bad if first_bad is None else first_bad
        return first_bad

    def trace(self, *, jit: bool) -> Any:
        """Return the tf.ConcreteFunction of a chunk of full batches, as `run` will call it."""
        size = self.batches.batch_size
        piece = Segment(epoch=0, first_step=0, first_row=0, steps=1, batch_size=size)
        with random_algorithm(self._algorithm(jit)):
            return self._compiled(size, jit=jit).get_concrete_function(*self._arguments(piece))

    def forget_compiled(self) -> None:
        """The step is compiled anew at the next run: something in it has changed."""
        self._chunks.clear()

    def _pieces(self, first_step: int, count: int) -> Iterator[Segment]:
        """Segments, cut to what one streamed chunk holds."""
        for segment in self.batches.segments(first_step, count):
            limit = (
                self.place.max_rows or segment.steps * segment.batch_size
            ) // segment.batch_size
            for done in range(0, segment.steps, limit):
                yield Segment(
                    segment.epoch,
                    segment.first_step + done,
                    segment.first_row + done * segment.batch_size,
                    min(limit, segment.steps - done),
                    segment.batch_size,
                )

    def _run_piece(self, piece: Segment, following: Segment | None, *, jit: bool) -> int | None:
        arguments = self._arguments(piece)
        if following is not None:
            self.place.announce(
                self._order(following.epoch),
                following.first_row,
                following.steps * following.batch_size,
            )
        compiled = self._compiled(piece.batch_size, jit=jit)
        # Tracing happens within the first call; later calls find the scope idle.
        with random_algorithm(self._algorithm(jit and self._is_full(piece.batch_size))):
            bad = int(compiled(*arguments))
        return None if bad < 0 else bad

    def _arguments(self, piece: Segment) -> tuple[Any, ...]:
        rows = piece.steps * piece.batch_size
        chunk = self.place.chunk(self._order(piece.epoch), piece.first_row, rows)
        return (
            chunk.tensors,
            chunk.order,
            tf.constant(chunk.offset),
            tf.constant(piece.steps),
            tf.constant(piece.first_step, tf.int64),
        )

    def _algorithm(self, jit: bool) -> str | None:
        return "threefry" if jit and self._on_cpu else None

    def _order(self, epoch: int) -> tf.Tensor:
        for wanted in (epoch, epoch + 1):
            if wanted not in self._orders:
                self._orders[wanted] = self._ordering.submit(
                    self._epoch_order, seed=self._seed, epoch=wanted
                )
        for old in [e for e in self._orders if e < epoch or e > epoch + 1]:
            del self._orders[old]
        return self._orders[epoch].result()

    def _is_full(self, batch_size: int) -> bool:
        return batch_size == self.batches.batch_size

    def _compiled(self, batch_size: int, *, jit: bool) -> Any:
        key = (batch_size, jit and self._is_full(batch_size))
        if key not in self._chunks:
            self._chunks[key] = self._compile(*key)
        return self._chunks[key]

    def _compile(self, batch_size: int, jit: bool) -> Any:
        state, step, strategy = self._state, self._step, self._state.strategy
        share = batch_size // state.replicas

        @tf.function(jit_compile=True if jit else None, reduce_retracing=True)
        def chunk(
            tensors: Any, order: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, first: tf.Tensor
        ) -> tf.Tensor:
            first_bad = tf.constant(-1, tf.int64)
            i = tf.constant(0)
            # A while loop, and rows by gather: under XLA the bounds of tf.range and the start
            # of tf.slice are constants of the program, compiled anew for every new value.
            while i < count:
                number = first + tf.cast(i, tf.int64)
                start = offset + i * batch_size

                def one_replica(start: tf.Tensor = start, number: tf.Tensor = number) -> tf.Tensor:
                    rows = rows_of_replica(order, start, share)
                    state.begin_step(number)
                    return step(state, tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors))

                updates = _updates(state.optimizer)  # Before the step.
                loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(one_replica), None)
                is_bad = tf.logical_and(first_bad < 0, _is_harm(loss, state.optimizer, updates))
                first_bad = tf.where(is_bad, number, first_bad)
                i += 1
            return first_bad

        return chunk


def _updates(optimizer: keras.Optimizer) -> tf.Tensor:
    """How often the optimizer was applied. With accumulation that is not its `iterations`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return tf.identity(inner._iterations.value)


def _is_harm(loss: tf.Tensor, optimizer: keras.Optimizer, updates_before: tf.Tensor) -> tf.Tensor:
    """Whether a step went wrong: bool scalar, a function of the state alone.

    A loss that is not finite is. With loss scaling the optimizer leaves out a step whose
    gradients overflow, and halves the scale, which is no harm as long as that helps: a loss that
    is not finite is harm once the scale is below 1, where it magnifies nothing, and any step that
    is left out is once it is below what float16 can resolve.
    """
    is_bad = tf.logical_not(tf.math.is_finite(loss))
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return is_bad
    scale = tf.convert_to_tensor(optimizer.dynamic_scale.value)
    was_left_out = tf.equal(updates_before, _updates(optimizer))
    return tf.where(was_left_out, is_bad & (scale < 1) | (scale < SMALLEST_SCALE), is_bad)


def rows_of_replica(order: tf.Tensor, start: tf.Tensor, share: int) -> tf.Tensor:
    """The row numbers of this replica's share of the batch that begins at `start`."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.gather(order, start + tf.cast(replica, tf.int32) * share + tf.range(share))
