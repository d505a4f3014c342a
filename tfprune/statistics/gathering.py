"""One pass over data, for all statistics that are asked for."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from tfprune.data import Batch, Reader, inputs_of
from tfprune.graph.walk import check_built
from tfprune.statistics.activations import ActivationMagnitudes, ActivationMoments, ActivationZeros
from tfprune.statistics.any_size import any_size
from tfprune.statistics.collectors import Collector, Subject, tensor_of
from tfprune.statistics.gates import GateGradients
from tfprune.statistics.layer_inputs import InputNorms
from tfprune.statistics.results import Statistics
from tfprune.statistics.second_order import HessianGradient, HessianWeights, hessian_vector_product
from tfprune.statistics.taps import tapped
from tfprune.statistics.targets import Loss, Target, as_target
from tfprune.statistics.undisturbed import undisturbed
from tfprune.statistics.weight_gradients import SquaredWeightGradients, WeightGradients

COLLECTORS: tuple[type[Collector], ...] = (
    WeightGradients,
    SquaredWeightGradients,
    GateGradients,
    HessianGradient,
    HessianWeights,
    ActivationMagnitudes,
    ActivationMoments,
    ActivationZeros,
    InputNorms,
)
"""Everything that can be gathered."""


def gather(
    model: keras.Model,
    data: Any,
    names: Collection[str],
    *,
    loss: Loss = "sampled",
    temperature: float = 1.0,
    max_samples: int | None = 1024,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> Statistics:
    """Gather what data says about a model, in one pass; the model is not changed, not even its state.

    The model runs as at inference, and all is added up in float32: one number per weight or channel.

    Args:
        model: A built Keras model.
        data: Inputs, and labels if the loss wants them, in any form that `fit` takes.
        names: What to gather; see `known_statistics`.
        loss: `"sampled"` needs no labels: they are drawn from what the model answers, as for Fisher information;
            `"compiled"` is the model's own loss; or a function of `y_true` and `y_pred`.
        temperature: Flattens a softmax before labels are drawn from it, or before the compiled loss sees it.
        max_samples: How many samples to see at most; None for all.
        batch_size: Samples per batch, for arrays.
        seed: Of what is drawn.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The statistics.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If a name is unknown, labels or the loss are missing, or data or gradients are not finite.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> gather(model, keras.ops.ones((4, 2)).numpy(), ["gradient"]).variables["gradient"].keys()
    dict_keys(['sequential.../dense.../kernel', 'sequential.../dense.../bias'])
    """
    check_built(model)
    if tf.distribute.has_strategy():
        raise ValueError("Gather statistics outside `with strategy.scope():`; the model may have been made inside.")
    if isinstance(names, str):
        raise TypeError(f"names must be a list of names, such as [{names!r}]. Received: {names!r}.")
    unknown = {*names} - {*known_statistics()}
    if unknown:
        raise ValueError(f"Unknown statistics: {sorted(unknown)}. Known: {known_statistics()}.")
    target = as_target(loss, model, temperature, seed)
    reader = Reader(
        data, inputs_of(model), needs_labels=target.needs_labels, batch_size=batch_size, max_samples=max_samples
    )
    subject = Subject(model)
    chosen = [kind(subject) for kind in COLLECTORS if {*kind.names} & {*names}]
    passes = max((collector.num_passes for collector in chosen), default=0)
    if passes > 1 and isinstance(data, Iterator):
        again = [name for collector in chosen if collector.num_passes > 1 for name in collector.names]
        raise ValueError(
            f"data is read {passes} times for {again}, but a generator only once. Give arrays or a dataset."
        )
    num_samples = 0
    with undisturbed(model):
        for number in range(passes):
            active = [collector for collector in chosen if number < collector.num_passes]
            num_samples = _read(_batches(reader, progress), model, active, as_target(loss, model, temperature, seed))
    variables: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for collector in chosen:
        (variables if collector.of == "variables" else channels).update(collector.result(num_samples))
    found = Statistics(num_samples, variables, channels)
    _check_finite(found, model)
    return found


def _check_finite(found: Statistics, model: keras.Model) -> None:
    where = [(statistic, name) for _, statistic, name, array in found.each() if not np.isfinite(array).all()]
    if where:
        names = [name for statistic, name in where if statistic == where[0][0]]
        raise ValueError(
            f"{where[0][0]!r} of {model.name!r} is NaN or infinite in {len(names)} places, from {names[0]!r} to "
            f"{names[-1]!r}. Activations carry such numbers from there to the output, gradients to the input. Check "
            "weights, labels and loss."
        )


def known_statistics() -> list[str]:
    """Return the names of all statistics.

    Example:

    >>> "gradient" in known_statistics()
    True
    """
    return sorted(name for kind in COLLECTORS for name in kind.names)


def _batches(reader: Reader, progress: bool) -> Iterable[Batch]:
    return track(
        reader,
        "Gathering statistics",
        total=reader.num_batches,
        console=Console(stderr=True),
        transient=True,
        disable=not progress,
    )


def _read(batches: Iterable[Batch], model: keras.Model, collectors: Sequence[Collector], target: Target) -> int:
    """Add all batches, and return how many samples there were."""
    step = _compiled(model, collectors, target)
    num_samples = 0
    for batch in batches:
        if not num_samples:  # compiled for batches of any size, as the last one is smaller
            step.get_concrete_function(*(any_size(part) for part in batch))
        step(*batch)
        num_samples += batch.num_samples
    for collector in collectors:
        collector.end_pass(num_samples)
    return num_samples


def _compiled(model: keras.Model, collectors: Sequence[Collector], target: Target) -> Any:
    single = [collector for collector in collectors if collector.of_single_samples]
    joint = [collector for collector in collectors if not collector.of_single_samples]

    @tf.function(reduce_retracing=True, autograph=False)  # as Keras compiles its own steps
    def step(*batch: Any) -> None:
        if joint:
            _add(batch, model, joint, target)

        def add_one(row: Any) -> Any:
            _add([_row(part, row) for part in batch], model, single, target)
            return row + 1

        if single:
            num_samples = tf.shape(keras.tree.flatten(batch[0])[0])[0]
            tf.while_loop(lambda row: row < num_samples, add_one, [0], parallel_iterations=1)

    return step


def _row(part: Any, row: Any) -> Any:
    """One sample of a part of a batch, as a batch of one."""
    return None if part is None else keras.tree.map_structure(lambda array: array[row, None], part)


def _add(batch: Sequence[Any], model: keras.Model, collectors: Sequence[Collector], target: Target) -> None:
    """Add a batch to what is gathered, inside the compiled step."""
    x, y, sample_weight = batch

    def loss() -> Any:
        return target.loss(x, y, model(x, training=False), sample_weight)

    layers = [layer for collector in collectors for layer in collector.layers]
    with tf.GradientTape(watch_accessed_variables=False) as tape, tapped(layers, tape.watch) as taps:
        for collector in collectors:
            for variable in collector.variables:
                tape.watch(tensor_of(variable))
        value = loss()
    wanted = [collector.sources(taps) for collector in collectors]
    found = iter(tape.gradient(value, [tensor_of(source) for sources in wanted for source in sources]))
    for collector, sources in zip(collectors, wanted, strict=True):
        gradients = [next(found) for _ in sources]
        if collector.directions is not None:
            gradients = hessian_vector_product(loss, collector.variables, collector.directions)
        collector.add(taps, gradients)
