"""Make up for removed channels without training: refit every layer that read them."""

import warnings
from typing import Any, Literal

import keras
import numpy as np

from tfprune.common.callers import stacklevel_of_user
from tfprune.common.checks import check_choice, check_count, check_not_negative
from tfprune.common.temporarily import restored
from tfprune.data import Batch, Reader, inputs_of
from tfprune.graph import check_built
from tfprune.reconstruction.heads import head_layers, shared_layers
from tfprune.reconstruction.least_squares import NormalEquations
from tfprune.reconstruction.playback import Moment, affordable, array_of, play
from tfprune.reconstruction.readings import Reading, reading_of
from tfprune.reconstruction.repair_report import ReconstructionReport, RefittedLayer
from tfprune.reconstruction.shortcuts import Shortcut, following_norm, is_norm
from tfprune.reconstruction.targets import Targets
from tfprune.rewriting.kept_positions import kept_positions, named_kernels

Layers = Literal["all", "body", "head"]

BATCH = 256
"""Samples that run through a layer at a time."""

EXACT = 1e-10
"""A layer that lacks no more than this share of the variance computes the same, and keeps its weights."""


def reconstruct(
    small: keras.Model,
    model: keras.Model,
    data: Any,
    *,
    layers: Layers = "all",
    ridge: float = 1e-3,
    max_samples: int = 1024,
    seed: int = 0,
) -> ReconstructionReport:
    """Refit a smaller model to the one that channels were removed from, in place: no training, and no labels.

    From the inputs to the outputs, each layer that multiplies by a kernel is fitted anew by least squares: its inputs
    are those that it gets in the smaller model, whose layers before it are refitted already, and its targets what the
    larger model computes there before the activation, for the channels that stayed. The last layer of a residual
    branch also makes up for what the shortcut lacks. BatchNormalization is recalibrated on the way. Layers that cannot
    be refitted, such as recurrent ones, stay as they are and are named in the report. Whatever is raised leaves the
    smaller model unchanged; the larger one never changes.

    All samples run through both models side by side: memory holds what lies between two layers, for all of them, and
    the products of all inputs of one layer. Of large images fewer samples are used, so that no tensor takes more than
    half a gigabyte.

    Reference: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    https://arxiv.org/abs/1707.06168

    Args:
        small: What `tfprune.prune_channels` or `tfprune.shrink` made of the model, or a file of it that was not
            trained further.
        model: The model that the channels were removed from.
        data: Inputs as for training, in any form that `fit` takes; labels are not used.
        layers: `"all"`, only the `"head"` (the layers that make the outputs), or only the `"body"` (the others).
        ridge: How strongly kernels are held to what they are, relative to the mean square of the inputs; above 0. With
            `math.inf` kernels stay, and biases alone take up what the removed channels were on average: the bias
            compensation of An et al., FLAP, AAAI 2024, https://arxiv.org/abs/2312.11983
        max_samples: How many samples to use at most: evenly spread over arrays, the first ones of anything else.
        seed: Of the positions of feature maps that are looked at.

    Returns:
        A report: the error of each layer before and after, and the layers that were left.

    Raises:
        TypeError: If a model is not a Keras 3 model, or the data has another form.
        ValueError: If an argument is out of range, the smaller model does not come from the larger one, or numbers
            that a layer gets are not finite.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3, name="classes")])
    >>> from tfprune import prune_channels
    >>> small = prune_channels(model, 0.5)
    >>> report = reconstruct(small, model, np.random.default_rng(0).normal(size=(256, 4)))
    >>> [(layer.name, layer.error_after < layer.error_before) for layer in report.refitted]
    [('classes', True)]
    """
    check_choice("layers", layers, ("all", "body", "head"))
    check_count("max_samples", max_samples)
    if ridge != np.inf and not check_not_negative("ridge", ridge):
        raise ValueError("ridge must be above 0: without it, inputs that depend on each other leave no solution.")
    check_built(small)
    check_built(model)
    if small is model:
        raise ValueError(f"{model.name!r} was given twice. Give the smaller model first, then the larger one.")
    kept = kept_positions(small, model)
    max_samples = min(max_samples, affordable(model))
    batches = list(Reader(data, inputs_of(model), batch_size=BATCH, max_samples=max_samples))
    with restored(model.non_trainable_variables), restored(small.variables, only_if_raised=True):
        return _Repair(small, Targets(model, kept, batches, seed), layers, ridge).run(batches)


class _Repair:
    """Refits the layers of one model, in the order of the data."""

    def __init__(self, small: keras.Model, targets: Targets, layers: Layers, ridge: float) -> None:
        self._small, self._targets, self._ridge = small, targets, ridge
        head = head_layers(small)
        self._wanted = {
            id(layer)
            for _, layer, _ in named_kernels(small)
            if layers in ("all", "head" if id(layer) in head else "body")
            and not isinstance(layer, keras.layers.Embedding)
        }
        self._refitted: list[RefittedLayer] = []
        self._left: dict[str, str] = {}
        self._few: list[tuple[int, str, int, int]] = []
        self._shared = shared_layers(small)

    def run(self, batches: list[Batch]) -> ReconstructionReport:
        met = set()
        for moment in play(self._small, batches):
            layer = moment.node.operation
            met.add(id(layer))
            if id(layer) in self._shared and (id(layer) in self._wanted or is_norm(layer)):
                self._left[moment.name] = "it is called more than once"
            elif is_norm(layer):
                _recalibrate(moment)
            elif id(layer) in self._wanted:
                self._meet(moment)
        for name, layer, _ in named_kernels(self._small):
            if id(layer) in self._wanted - met:
                self._left[name.rpartition("/")[0]] = "it works inside another layer"
        self._warn_of_few()
        return ReconstructionReport(self._small.name, tuple(self._refitted), self._left)

    def _meet(self, moment: Moment) -> None:
        reading = reading_of(moment.node.operation)
        if reading is None:
            self._left[moment.name] = f"{type(moment.node.operation).__name__} is not refitted"
        elif np.signbit(kernel := reading.kernel.numpy())[kernel == 0].any():
            self._left[moment.name] = "single weights of it are pruned"
        else:
            self._refit(moment, reading)

    def _refit(self, moment: Moment, reading: Reading) -> None:
        target = self._targets.of(f"{moment.name}/{reading.axes.attribute}")
        shortcut = Shortcut.of(moment, reading)
        if shortcut is not None and target.shortcut is not None:
            shortcut.aim(target)
        else:
            shortcut = None
        present = reading.matrix(reading.kernel.numpy().astype(np.float64))
        groups, unknowns, outputs = present.shape
        equations = NormalEquations(groups, unknowns, outputs)
        for index, (where, aim) in enumerate(zip(target.where, target.outputs, strict=True)):
            rows = reading.rows(array_of(moment.inputs[index]), where)
            _check_finite(moment, rows, aim)
            equations.add(rows, aim.reshape(len(aim), groups, outputs))
        if equations.count < unknowns:
            self._few.append((-(-unknowns // target.per_sample), moment.name, unknowns, equations.count))
        norm = following_norm(moment)
        fitted = equations.centred() if reading.bias is not None or norm is not None else equations
        held = None if reading.bias is None else reading.bias.numpy().astype(np.float64).reshape(groups, outputs)
        before = fitted.error(present, None if held is None else equations.offset(present) - held)
        if before < EXACT:
            self._left[moment.name] = "it computes what it did"
            return
        found = fitted.solution(present, self._ridge)
        reading.kernel.assign(reading.folded(found))
        if reading.bias is not None:
            reading.bias.assign(equations.offset(found).reshape(tuple(reading.bias.shape)))
        self._refitted.append(
            RefittedLayer(moment.name, equations.count, unknowns, before, fitted.error(found), shortcut is not None)
        )

    def _warn_of_few(self) -> None:
        """Say, once for all layers, that there were fewer positions than numbers to fit."""
        if not self._few:
            return
        samples, name, unknowns, count = max(self._few)
        others = f" (and too few for {len(self._few) - 1} other layers)" if self._few[1:] else ""
        warnings.warn(
            f"{name!r} has {unknowns} numbers to fit for each output, and the data shows {count} positions{others}. "
            f"The ridge keeps what they do not tell, but give at least {samples} samples.",
            stacklevel=stacklevel_of_user(),
        )


def _recalibrate(moment: Moment) -> None:
    """Give a BatchNormalization the mean and variance of what now goes into it."""
    layer = moment.node.operation
    rows = [np.moveaxis(array_of(batch), layer.axis, -1) for batch in moment.inputs]
    rows = [batch.reshape(-1, batch.shape[-1]) for batch in rows]
    _check_finite(moment, *rows)
    count = sum(map(len, rows))
    mean = sum(batch.sum(axis=0, dtype=np.float64) for batch in rows) / count
    squares = (np.square(batch - mean.astype(np.float32)).sum(axis=0, dtype=np.float64) for batch in rows)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(sum(squares) / count)


def _check_finite(moment: Moment, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{moment.name!r} gets or makes numbers that are not finite, so it cannot be fitted.")
