"""TrainState: all of it survives a checkpoint, and nothing else is taken for it."""

import keras
import numpy as np
import pytest
import small_runs as small
import tensorflow as tf

from kerastrain.errors import KerastrainError
from kerastrain.training.staging import Staging
from kerastrain.training.state import TrainState


class Composite(keras.layers.Layer):
    """Layers held in a list and a dict: what tf.train.Checkpoint(model=model) loses."""

    def __init__(self):
        super().__init__()
        self.stages = [keras.layers.Dense(4), {"last": keras.layers.Dense(3)}]
        self.first, self.last = self.stages[0], self.stages[1]["last"]

    def call(self, x):
        return self.last(self.first(x))


def composite_model():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5), Composite()])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("make", [composite_model, lambda: small.classifier(dropout=0.2)])
def test_every_variable_of_model_optimizer_and_metrics_is_in_the_checkpoint(make, tmp_path):
    examples = small.blobs()
    state = small.state_of(make(), examples)
    rng = np.random.default_rng(1)
    state.assign([(rng.random(v.shape) * 50).astype(v.dtype) for v in state.snapshot()])
    state.step, state.host = 41, {"history": [1, 2]}
    staging = Staging(state)
    staging.take()
    wanted = state.snapshot()
    # What happens to the state afterwards is not in the snapshot.
    state.assign([np.zeros_like(value) for value in wanted])
    path = staging.checkpoint.save(str(tmp_path / "c"))

    other = small.state_of(make(), examples)
    restored = Staging(other)
    restored.checkpoint.restore(path).assert_consumed()
    restored.give_back()
    assert small.same(other.snapshot(), wanted)
    assert (other.step, other.host) == (41, {"history": [1, 2]})
    names = {path for _, path, _, _ in state.describe()}
    assert any("seed_generator_state" in name for name in names)
    assert len(state.describe()) == len(
        [*state.model.variables, *state.optimizer.variables, *state.model.metrics_variables]
    )


def test_a_model_that_is_not_compiled_is_refused():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(KerastrainError, match="not compiled; call model.compile"):
        small.state_of(model, small.blobs())


def test_examples_that_do_not_fit_the_model_are_refused_with_both_shapes():
    with pytest.raises(KerastrainError, match=r"does not take these examples .*float32\[4, 5\]"):
        TrainState(
            small.classifier(),
            strategy=tf.distribute.get_strategy(),
            seed=0,
            batch=(np.zeros((4, 5), np.float32), np.zeros(4, np.int32)),
        )


def test_a_subclassed_model_without_a_training_argument_is_built_from_the_examples():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Plain()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    state = small.state_of(model, small.blobs())
    assert len(state.trainable_values) == 2
    assert state.predict(np.zeros((2, 8), np.float32), training=True).shape == (2, 3)
