"""A copy of the state in host memory: what is written while the training goes on.

staging = Staging(state)
staging.take()             # the state as it is now
staging.checkpoint         # tf.train.Checkpoint over the copy, to save or to restore
staging.give_back()        # the state becomes what the copy holds
"""

from __future__ import annotations

import tensorflow as tf

from kerastrain.training.state import TrainState


class Staging:
    """As large as the state itself: twice the memory buys not waiting for the disk."""

    def __init__(self, state: TrainState):
        self._state = state
        groups = state.variables()
        with tf.device("/cpu:0"):
            self._copies = {
                group: [tf.Variable(tf.zeros(v.shape, v.dtype)) for _, v in members]
                for group, members in groups.items()
            }
            self._host = tf.Variable("", dtype=tf.string)
        self.checkpoint = tf.train.Checkpoint(host=self._host, **self._copies)

    def take(self) -> None:
        """Copies every variable, and step and host values as one text."""
        for group, members in self._state.variables().items():
            for copy, (_, variable) in zip(self._copies[group], members, strict=True):
                # By way of NumPy: a copy for certain, whatever device or buffer it lay in.
                copy.assign(variable.numpy())
        self._host.assign(self._state.pack())

    def give_back(self) -> None:
        """Puts the copy into the state.

        Raises:
            CheckpointError: the host values cannot be read.
        """
        self._state.unpack(self._host.numpy())
        for group, members in self._state.variables().items():
            for copy, (_, variable) in zip(self._copies[group], members, strict=True):
                variable.assign(copy.numpy())
