"""Prune Keras 3 models during `fit`, shrink them, and ship a checked `.tflite`."""

__version__ = "0.1.0"
