"""Running a `.tflite` file in Python."""

from tfprune.tflite.model import TensorDetails, TFLiteModel

__all__ = ["TFLiteModel", "TensorDetails"]
