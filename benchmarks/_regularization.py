"""The pruning methods that `regularization.py` compares, one function each."""

import bisect
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from _trainings import Images, Job, Settings, Training

import tfprune
from tfprune.callbacks import (
    FPGM,
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    MorphNet,
    NetworkSlimming,
    SoftFilterPruning,
    SparseStructureSelection,
)
from tfprune.criteria import AnyChannelCriterion, BatchNormGamma, l1_norm, l2_norm
from tfprune.layers import scaling_factors, with_scaling_factors


def prune(
    model: keras.Model, left: float, criterion: AnyChannelCriterion, ranking: tfprune.Ranking | None = None
) -> keras.Model:
    """Return the model without its worst channels, within the budget of MACs."""
    budget = tfprune.Budget(macs=left * macs(model))
    return tfprune.prune_channels(model, budget=budget, criterion=criterion, ranking=ranking or tfprune.Ranking())


def prune_by_gamma(model: keras.Model, left: float, reduce: Literal["mean", "max"]) -> keras.Model:
    """Return the model without the channels of the smallest |gamma| of all, within the budget of MACs.

    Args:
        model: A network.
        left: The fraction of its MACs that may stay.
        reduce: What makes one score for each channel of the |gamma| of the layers that share it.
    """
    return prune(model, left, BatchNormGamma(), tfprune.Ranking("global", reduce=reduce, normalize="none"))


def macs(model: keras.Model) -> int:
    """Return the multiply-accumulate operations of a model."""
    return tfprune.profile(model).macs


def uniform_ratio(model: keras.Model, left: float) -> float:
    """Return the smallest ratio, of the channels of every group, that leaves at most that fraction of the MACs."""
    widths = {group.size for group in tfprune.channel_groups(model).free}
    ratios = sorted({Fraction(count, width) for width in widths for count in range(1, width)})

    def fits(ratio: Fraction) -> bool:
        return macs(tfprune.prune_channels(model, float(ratio))) <= left * macs(model)

    return float(ratios[bisect.bisect_left(ratios, True, key=fits)])


def dense(training: Training, left: float) -> keras.Model:
    return training.dense(3)


def scratch_e(training: Training, left: float) -> keras.Model:
    return training.fit(_small_anew(training, left), 0, 3 * training.third)


def scratch_b(training: Training, left: float) -> keras.Model:
    model = training.new()
    small = _small_anew(training, left)
    epochs = round(3 * training.third * macs(model) / macs(small))
    return training.fit(small, 0, epochs, epochs=epochs)


def _small_anew(training: Training, left: float) -> keras.Model:
    small = prune(training.new(), left, l1_norm)
    keras.utils.set_random_seed(training.job.seed)
    return keras.models.clone_model(small)


def l1_one_shot(training: Training, left: float) -> keras.Model:
    return training.finish(prune(training.dense(2), left, l1_norm))


def fpgm(training: Training, left: float) -> keras.Model:
    # A hard choice on an untrained network would be one among random filters.
    callback = FPGM(uniform_ratio(training.new(), left))
    return training.finish(tfprune.shrink(training.with_callback(callback, after=1)))


def soft_filter_pruning(training: Training, left: float) -> keras.Model:
    callback = SoftFilterPruning(uniform_ratio(training.new(), left))
    return training.finish(tfprune.shrink(training.with_callback(callback)))


def group_lasso(training: Training, left: float) -> keras.Model:
    model = training.with_callback(GroupLasso(training.job.strength))
    return training.finish(prune(model, left, l2_norm, tfprune.Ranking("global")))


def group_norm(training: Training, left: float) -> keras.Model:
    model = training.with_callback(GroupNormRegularization(training.job.strength), after=1)
    return training.finish(prune(model, left, l2_norm))


def growing(training: Training, left: float) -> keras.Model:
    model = training.with_callback(GrowingRegularization(training.job.strength, frequency=5), after=1)
    return training.finish(prune(model, left, l2_norm))


def network_slimming(training: Training, left: float) -> keras.Model:
    # Which ratio meets the target depends on the gammas: prune next to nothing here, and the rest by the same ranking.
    callback = NetworkSlimming(training.job.strength, ratio=0.05, prune_at=2 * training.third)
    model = training.with_callback(callback)
    return training.finish(prune_by_gamma(model, left, "mean"))


def morphnet(training: Training, left: float) -> keras.Model:
    model = training.with_callback(MorphNet(training.job.strength))
    return training.finish(prune_by_gamma(model, left, "max"))


def structure_selection(training: Training, left: float) -> keras.Model:
    """Remove the blocks whose factor is zero, and as many more of the smallest as the budget asks for."""
    model = training.with_callback(SparseStructureSelection(training.job.strength), change=with_scaling_factors)
    budget = left * macs(training.new())
    small = tfprune.shrink(model)
    for layer in sorted(scaling_factors(model), key=lambda layer: float(layer.factor.numpy())):
        if macs(small) <= budget:
            break
        layer.factor.assign(0.0)
        small = tfprune.shrink(model)
    return training.finish(small)


METHODS: dict[str, Callable[[Training, float], keras.Model]] = {
    "dense": dense,
    "Scratch-E": scratch_e,
    "Scratch-B": scratch_b,
    "L1 one-shot": l1_one_shot,
    "FPGM": fpgm,
    "SFP": soft_filter_pruning,
    "GroupLasso": group_lasso,
    "GroupNorm": group_norm,
    "Growing": growing,
    "NetworkSlimming": network_slimming,
    "MorphNet": morphnet,
    "SSS": structure_selection,
}
ONLY_RESIDUAL = ("SSS",)


def run(job: Job, settings: Settings, data: Images, folder: Path) -> dict[str, Any]:
    """Train one network, and return what was measured; its latency for seed 0 only.

    Args:
        job: The run.
        settings: As in `regularization.py`.
        data: Images and labels to train on, and to evaluate with.
        folder: Where beginnings are kept that several runs share.
    """
    start, start_cpu = time.perf_counter(), time.process_time()
    keras.backend.clear_session()
    training = Training(job, settings, data, folder)
    model = METHODS[job.method](training, job.left)
    row = {
        **vars(job),
        "accuracy": training.accuracy(model),
        "pruned_accuracy": training.pruned_accuracy,
        "macs": macs(model),
        "macs_left": macs(model) / macs(training.new()),
        "parameters": model.count_params(),
    }
    if job.seed == 0 and job.method != "dense":
        row |= _latency(training.new(), model, data[0][:100], settings["latency_runs"])
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {**row, "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}


def _latency(dense_model: keras.Model, model: keras.Model, images: np.ndarray, runs: int) -> dict[str, Any]:
    """Latency over that of the dense network; what its weights are makes no difference."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "dense.tflite", Path(folder) / "small.tflite"]
        for path, each in zip(paths, (dense_model, model), strict=True):
            tfprune.export(each, path, calibration=images)
        timing = tfprune.benchmark(*paths, runs=runs).files[1]
    return {"latency_ratio": timing.ratio, "latency_ratio_quartiles": [timing.ratio_low, timing.ratio_high]}
