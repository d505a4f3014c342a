"""`tfprune prune`: a smaller Keras model, without training."""

import tempfile
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.table import Table

from tfprune.common.files import write_atomically
from tfprune.common.tables import Report, new_table
from tfprune.criteria import geometric_median_distance, l1_norm, l2_norm
from tfprune.granularity import Channel
from tfprune.graph import functional
from tfprune.graph.chains import chains
from tfprune.graph.profiling import profile
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.one_shot import prune_channels
from tfprune.shrinking.recalibration import recalibrate
from tfprune_cli.data import DataFile, read_data
from tfprune_cli.errors import InputError
from tfprune_cli.loading import load_model

_CRITERIA = {"l2": l2_norm, "l1": l1_norm, "fpgm": geometric_median_distance}


@dataclass(frozen=True)
class Costs:
    """What a model costs: weights, multiply-accumulates for one sample, and bytes of its float32 weights."""

    parameters: int
    macs: int
    weight_bytes: int


@dataclass(frozen=True)
class PruneReport(Report):
    """A model before and after pruning; `recalibrated_on` is a number of samples, or None."""

    path: str
    before: Costs
    after: Costs
    recalibrated_on: int | None

    def to_table(self) -> Table:
        """Return one row per cost."""
        table = new_table(f"Pruned: {self.path}", [""], ["before", "after", "ratio"])
        for name, key in (("parameters", "parameters"), ("MACs", "macs"), ("bytes of float32 weights", "weight_bytes")):
            before, after = getattr(self.before, key), getattr(self.after, key)
            table.add_row(name, f"{before:,}", f"{after:,}", f"{after / before:.3f}" if before else "-")
        table.caption_justify = "left"
        table.caption = (
            "Nothing was trained: fine-tune the model to bring its accuracy back."
            if self.recalibrated_on is None
            else f"BatchNormalization measured anew on {self.recalibrated_on:,} samples."
        )
        return table


def prune(options: Namespace) -> Report:
    """Remove the least important channels, and save a plain Keras model."""
    data = None if options.data is None else read_data(options.data)
    model = load_model(options.model, options.unsafe)
    samples = None if data is None else _samples(model, data)
    limits = {"macs": options.macs, "parameters": options.parameters, "file_bytes": options.bytes}
    wanted = {name: limit for name, limit in limits.items() if limit is not None}
    channels = None
    if options.min_channels != 1 or options.round_to != 1:
        channels = Channel(min_channels=options.min_channels, round_to=options.round_to)
    small = prune_channels(
        model,
        options.ratio,
        target=Budget(**wanted) if wanted else None,
        criterion=_CRITERIA[options.criterion],
        ranking=options.ranking,
        granularity=channels,
        exclude=[_find(model, name) for name in options.exclude],
    )
    if samples is not None:
        recalibrate(small, samples)
    _save(small, options.out)
    count = None if samples is None else len(keras.tree.flatten(samples)[0])
    return PruneReport(str(options.out), _costs(model), _costs(small), count)


def _costs(model: keras.Model) -> Costs:
    sums = profile(model)
    return Costs(sums.parameters, sums.macs, 4 * sums.parameters)


def _find(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return a layer by the name that `tfprune profile` prints, behind the names of those that it lies in."""
    found = [chain[-1] for chain in chains(model) if "/".join(layer.name for layer in chain) == name]
    if not found:
        raise InputError(f"There is no layer {name!r} to exclude. `tfprune profile MODEL` prints the names.")
    return found[0]


def _samples(model: keras.Model, data: DataFile) -> np.ndarray | dict[str, np.ndarray]:
    """Return the data in the form that the model takes, checked against its inputs before any work."""
    inputs = {tensor.name: tuple(tensor.shape[1:]) for tensor in functional(model).inputs}
    found = data.inputs(list(inputs))
    for name, shape in inputs.items():
        array = found[name] if isinstance(found, dict) else found
        fits = array.ndim == len(shape) + 1 and all(
            want in (None, size) for want, size in zip(shape, array.shape[1:], strict=True)
        )
        if not fits or not len(array):
            raise InputError(
                f"Expected samples of shape (samples, {', '.join(map(str, shape))}) for input {name!r}. "
                f"'{data.path}' has: {array.shape}."
            )
    return found


def _save(model: keras.Model, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.keras"
        model.save(whole)
        write_atomically(path, whole.read_bytes())
