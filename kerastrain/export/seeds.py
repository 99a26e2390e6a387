"""What a model changes in itself when it is asked: the same for all who are compared.

    seeds = Seeds.of(encoder, model)              # as they are now
    outputs = seeds.asked(lambda: model(batch))   # and so the export, elsewhere, from the same
    seeds.drawn                                   # whether the outputs may hang on them

A variational autoencoder samples, Dropout called with training=True drops. Keras draws from
seed generators, whose states are variables of the model and of its export. A layer of one's own
may count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator

from kerastrain.training.kept_variables import untracked_variables
from kerastrain.training.strategy import replica_values

# Seeds and counters; larger ones, of frozen layers, are not copied.
MAX_NUMBERS = 1024


class Seeds:
    """Small variables without training, and the values that they have at each asking.

    Attributes:
        drawn: whether one was changed by being asked.
    """

    def __init__(self, states: Iterable[tf.Variable], values: Sequence[Any] | None = None):
        self._states = list(states)
        own = [state.numpy() for state in self._states]
        self.values = own if values is None else [np.asarray(value) for value in values]
        self.drawn = False

    @classmethod
    def of(cls, *models: keras.Model, values: Sequence[Any] | None = None) -> Seeds:
        """Those of the models, and the seed that is drawn from where none is given."""
        # What Keras does not track comes last: a model that is loaded from a file has none of it.
        held = [v.value for model in models for v in model.variables]
        held.append(global_seed_generator().state.value)
        held += [variable for model in models for _, variable in untracked_variables(model)]
        states = filter(_may_change, held)
        return cls((copy for state in states for copy in replica_values(state)), values)

    @classmethod
    def of_export(cls, loaded: Any) -> Seeds:
        """Those of a loaded SavedModel, which were saved with it."""
        return cls(filter(_may_change, loaded.signatures["serving_default"].graph.variables))

    @property
    def fits(self) -> bool:
        """Whether each variable has a value of its shape; some values may be of none."""
        pairs = zip(self._states, self.values, strict=False)
        enough = len(self._states) <= len(self.values)
        return enough and all(tuple(s.shape) == value.shape for s, value in pairs)

    def asked(self, ask: Callable[[], Any]) -> Any:
        """What `ask` gives when it begins with the values, which are there again afterwards."""
        self._set()
        try:
            return ask()
        finally:
            self.drawn = self._set() or self.drawn

    def _set(self) -> bool:
        """Whether one had another value."""
        moved = False
        if not self.fits:
            return moved
        for state, value in zip(self._states, self.values, strict=False):
            if not np.array_equal(state.numpy(), value):
                moved = True
                state.assign(value.astype(state.dtype.as_numpy_dtype))
        return moved


def _may_change(variable: Any) -> bool:
    return not variable.trainable and math.prod(variable.shape) <= MAX_NUMBERS
