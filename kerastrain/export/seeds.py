"""Random numbers that a model draws when it is asked: the same for all who are compared.

    seeds = Seeds.of(encoder, model)              # as they are now
    outputs = seeds.asked(lambda: model(batch))   # and so the export, elsewhere, from the same
    seeds.drawn                                   # whether the outputs hang on them

A variational autoencoder samples, Dropout called with training=True drops. Keras draws from
seed generators, whose states are variables of the model and of its export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator

from kerastrain.training.strategy import replica_values

# Keras has no public list of seed generators; TensorFlow's name of one begins with its layer's.
NAME = "seed_generator_state"


class Seeds:
    """States of seed generators, and the values that they have at each asking.

    Attributes:
        drawn: whether something was drawn from them in one.
    """

    def __init__(self, states: Iterable[tf.Variable], values: Sequence[Any] | None = None):
        self._states = list(states)
        own = [state.numpy() for state in self._states]
        self.values = own if values is None else [np.asarray(value) for value in values]
        self.drawn = False

    @classmethod
    def of(cls, *models: keras.Model, values: Sequence[Any] | None = None) -> Seeds:
        """Those of the models, and the one that is drawn from where no seed is given."""
        variables = [v.value for model in models for v in model.variables if v.name == NAME]
        states = [*variables, global_seed_generator().state.value]
        return cls((copy for state in states for copy in replica_values(state)), values)

    @classmethod
    def of_export(cls, loaded: Any) -> Seeds:
        """Those of a loaded SavedModel, which were saved with it."""
        variables = loaded.signatures["serving_default"].graph.variables
        return cls(v for v in variables if v.name.split("/")[-1].startswith(NAME))

    @property
    def fits(self) -> bool:
        """Whether there are as many generators as values."""
        return len(self._states) == len(self.values)

    def asked(self, ask: Callable[[], Any]) -> Any:
        """What `ask` gives when it draws from the values, which are there again afterwards."""
        self._set()
        try:
            return ask()
        finally:
            self.drawn = self._set() or self.drawn

    def _set(self) -> bool:
        """Whether one had another value."""
        moved = False
        for state, value in zip(self._states, self.values, strict=self.fits):
            if not np.array_equal(state.numpy(), value):
                moved = True
                state.assign(value.astype(state.dtype.as_numpy_dtype))
        return moved
