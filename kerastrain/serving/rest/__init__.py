"""The REST side of the server: TensorFlow Serving's routes and the Open Inference Protocol."""

from kerastrain.serving.rest.app import create_app

__all__ = ["create_app"]
