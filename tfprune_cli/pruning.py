"""`tfprune prune`: a smaller Keras model, without training."""

import tempfile
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import keras
from rich.table import Table

from tfprune.common.files import write_atomically
from tfprune.common.tables import Report, new_table
from tfprune.criteria import geometric_median_distance, l1_norm, l2_norm
from tfprune.data import load_model
from tfprune.granularity import Channel
from tfprune.graph.chains import chains
from tfprune.graph.profiling import profile
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.one_shot import prune_channels
from tfprune.shrinking.recalibration import recalibrate
from tfprune_cli.data import read_data
from tfprune_cli.errors import InputError

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
    model = load_model(options.model, unsafe=options.unsafe)
    samples = None if data is None else data.checked(model)
    limits = {"macs": options.macs, "parameters": options.parameters, "weight_bytes": options.bytes}
    wanted = {name: limit for name, limit in limits.items() if limit is not None}
    channels = None
    if options.min_channels != 1 or options.round_to != 1:
        channels = Channel(min_channels=options.min_channels, round_to=options.round_to)
    small = prune_channels(
        model,
        options.ratio,
        budget=Budget(**wanted) if wanted else None,
        criterion=_CRITERIA[options.criterion],
        ranking=options.ranking,
        granularity=channels,
        exclude=[_find(model, name) for name in options.exclude],
    )
    if samples is not None:
        recalibrate(small, samples.x)
    _save(small, options.out)
    count = None if samples is None else samples.num_samples
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


def _save(model: keras.Model, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.keras"
        model.save(whole)
        write_atomically(path, whole.read_bytes())
