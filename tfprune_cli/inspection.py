"""`tfprune profile` and `tfprune groups`: what a model is made of."""

from argparse import Namespace

from tfprune.common.tables import Report
from tfprune.data import load_model
from tfprune.graph import channel_groups
from tfprune.graph.profiling import profile as profile_model
from tfprune_cli.file_profile import profile_file


def profile(options: Namespace) -> Report:
    """Count the weights and operations of a Keras model or a `.tflite` file."""
    if options.model.suffix == ".tflite":
        return profile_file(options.model)
    return profile_model(load_model(options.model, unsafe=options.unsafe))


def groups(options: Namespace) -> Report:
    """Find which channels of a Keras model can be removed."""
    return channel_groups(load_model(options.model, unsafe=options.unsafe), approximate=options.approximate)
