from __future__ import annotations

import importlib
import sys

import keras
import pytest

import kerastrain
from kerastrain.export.clean_environment import without_this_package


@keras.saving.register_keras_serializable("kerastrain_tests")
class Own(keras.layers.Layer):
    pass


def test_without_this_package_it_cannot_be_imported_and_own_classes_are_unknown():
    before = dict(sys.modules)
    config = keras.saving.serialize_keras_object(Own())
    with without_this_package():
        for name in ("kerastrain", "kerastrain.errors", "kerastrain.networks.ensemble"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        with pytest.raises(TypeError, match="Could not locate class 'Own'"):
            keras.saving.deserialize_keras_object(config)
    assert sys.modules == before and sys.modules["kerastrain"] is kerastrain
    assert isinstance(keras.saving.deserialize_keras_object(config), Own)
