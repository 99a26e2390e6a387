"""A state and examples in, {"loss": …, "accuracy": …} out.

evaluate = Evaluator(state, examples, batch_size=128)
metrics = evaluate(jit=False)      # without the "val_" prefix
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.training.executor import rows_of_replica
from kerastrain.training.placement import placed
from kerastrain.training.state import TrainState
from kerastrain.training.strategy import first_device

logger = logging.getLogger(__name__)

# What TensorFlow raises when XLA has no kernel for an op, or a shape is not static.
COMPILE_ERRORS = (tf.errors.OpError, ValueError, TypeError)

# Between two calls an evaluation can be broken off.
CALL_SECONDS = 0.5


class Evaluator:
    """Runs the model's `test_step` over all examples, each exactly once.

    Args:
        batch_size: examples at once, over all replicas: losses and metrics of a batch as a
            whole depend on it, as in `model.evaluate`.
        budget_bytes: how much of the examples may stay on the device; None: measured.
    """

    def __init__(
        self,
        state: TrainState,
        examples: Examples,
        *,
        batch_size: int,
        budget_bytes: int | None = None,
    ):
        self._state = state
        self._count = len(examples)
        # With fewer rows than replicas there is no full batch: all of them are "the rest".
        size = min(batch_size, self._count) // state.replicas * state.replicas
        self._batch_size = size or state.replicas
        self._jit_works, self._compiled_once = True, False
        self._place = placed(
            examples,
            device=first_device(state.strategy),
            batch_size=self._batch_size,
            budget_bytes=budget_bytes,
        )
        self._order = tf.range(self._count)
        self._chunks: dict[bool, Callable[..., None]] = {}
        self._batch_seconds: float | None = None

    def __call__(
        self, *, jit: bool, is_broken_off: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """The model's metrics over the examples. Leaves the metric variables reset.

        Args:
            is_broken_off: asked about every half second; once it is true there is no result.

        Returns:
            {"loss": …, "accuracy": …}, or None when it was broken off.

        What XLA cannot compile of the model's `test_step` runs without it; whether it can
        does not change from start to start.
        """
        if jit and self._jit_works:
            try:
                return self._evaluated(jit=True, is_broken_off=is_broken_off)
            except COMPILE_ERRORS as error:
                if self._compiled_once:
                    raise
                logger.info("Evaluations run without XLA, which cannot compile this model's.")
                logger.debug("%s", error)
                self._jit_works = False
        return self._evaluated(jit=False, is_broken_off=is_broken_off)

    @property
    def examples(self) -> int:
        """How many there are."""
        return self._count

    def try_one_batch(self) -> dict[str, float]:
        """The metrics over the first few examples only; they are reset afterwards."""
        self._state.model.reset_metrics()
        self._rest(*self._arguments(0, self._few))
        return self._result()

    def trace(self) -> Any:
        """Return the tf.ConcreteFunction that `try_one_batch` calls."""
        return self._rest.get_concrete_function(*self._arguments(0, self._few))

    @property
    def _few(self) -> int:
        return min(self._count, self._state.replicas * 8)

    def _evaluated(
        self, *, jit: bool, is_broken_off: Callable[[], bool]
    ) -> dict[str, float] | None:
        self._state.model.reset_metrics()
        self._set_seeds()
        full, done = self._count // self._batch_size, 0
        while done < full:
            if is_broken_off():
                self._state.model.reset_metrics()
                return None
            batches = min(full - done, self._batches_in_a_call())
            self._run_timed(done * self._batch_size, batches, jit=jit)
            done += batches
        rest = self._count - full * self._batch_size
        if rest:
            self._rest(*self._arguments(full * self._batch_size, rest))
        self._compiled_once = True
        return self._result()

    def _result(self) -> dict[str, float]:
        metrics = as_floats(self._state.model.get_metrics_result())
        self._state.model.reset_metrics()
        return metrics

    def _batches_in_a_call(self) -> int:
        """About half a second; one, while it is not known how long a batch takes."""
        limit = (self._place.max_rows or self._count) // self._batch_size
        if self._batch_seconds is None:
            return 1
        return max(1, min(limit, int(CALL_SECONDS / max(self._batch_seconds, 1e-9))))

    def _run_timed(self, first_row: int, batches: int, *, jit: bool) -> None:
        is_first_call = not self._compiled_once and first_row == 0
        began = time.perf_counter()
        self._run(first_row, batches, self._batch_size, jit=jit)
        # The queue of a GPU returns at once; reading a metric waits for the work to be done.
        self._state.model.get_metrics_result()
        if not is_first_call:  # It compiles.
            self._batch_seconds = (time.perf_counter() - began) / batches

    def _run(self, first_row: int, steps: int, batch_size: int, *, jit: bool) -> None:
        chunk = self._place.chunk(self._order, first_row, steps * batch_size)
        if jit not in self._chunks:
            self._chunks[jit] = self._compile(jit)
        self._chunks[jit](chunk.tensors, chunk.order, tf.constant(chunk.offset), tf.constant(steps))

    def _arguments(self, first_row: int, rows: int) -> tuple[Any, ...]:
        chunk = self._place.chunk(self._order, first_row, rows)
        return chunk.tensors, chunk.order, tf.constant(chunk.offset), tf.constant(rows)

    def _compile(self, jit: bool) -> Callable[..., None]:
        state, batch_size = self._state, self._batch_size
        share = batch_size // state.replicas

        @tf.function(jit_compile=True if jit else None, reduce_retracing=True)
        def chunk(tensors: Any, order: tf.Tensor, offset: tf.Tensor, steps: tf.Tensor) -> None:
            i = tf.constant(0)
            while i < steps:
                start = offset + i * batch_size

                def one_replica(start: tf.Tensor = start) -> None:
                    rows = rows_of_replica(order, start, share)
                    state.model.test_step(
                        tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors)
                    )

                state.strategy.run(one_replica)
                i += 1

        return chunk

    def _set_seeds(self) -> None:
        """A layer that draws outside of training, too, draws the same in a resumed run."""
        # Below zero, where no training step is: its numbers are not those of the next one.
        number = tf.constant(-1 - self._state.step, tf.int64)
        begin = self._state.begin_step if self._state.replicas == 1 else self._begin_on_replicas
        begin(number)

    @tf.function
    def _begin_on_replicas(self, number: tf.Tensor) -> None:
        self._state.strategy.run(self._state.begin_step, (number,))

    @tf.function(reduce_retracing=True)
    def _rest(self, tensors: Any, order: tf.Tensor, offset: tf.Tensor, rows: tf.Tensor) -> None:
        """The rows beyond the full batches, dealt to the replicas as evenly as possible."""
        state = self._state

        def one_replica() -> None:
            first, last = _share(rows, _replica(), state.replicas)
            # A replica without a row must not count: the mean of nothing is NaN.
            if last > first:
                own = tf.slice(order, [offset + first], [last - first])
                state.model.test_step(tf.nest.map_structure(lambda t: tf.gather(t, own), tensors))

        state.strategy.run(one_replica)


def as_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among metrics or logs; of an array one for each element: "f1_0", "f1_1".

    What is no number (a callback may put a text into the logs) is left out.
    """
    plain: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            continue
        if array.ndim == 0:
            plain[name] = float(array)
        else:
            plain.update({f"{name}_{i}": float(v) for i, v in enumerate(array.ravel())})
    return plain


def _replica() -> tf.Tensor:
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)


def _share(rows: tf.Tensor, replica: tf.Tensor, replicas: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The half-open range of rows that a replica takes."""
    return rows * replica // replicas, rows * (replica + 1) // replicas
