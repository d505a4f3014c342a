"""Every form of data that `keras.Model.fit` takes, read in one place, and Keras models from files."""

from tfprune.data.inputs import Inputs, inputs_of
from tfprune.data.models import load_model
from tfprune.data.reading import Batch, Reader

__all__ = ["Batch", "Inputs", "Reader", "inputs_of", "load_model"]
