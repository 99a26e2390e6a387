"""Keras callbacks, for the loop of this package and for `model.fit`."""
