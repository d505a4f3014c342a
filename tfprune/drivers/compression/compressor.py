"""`compress`: prune in steps, fine-tune between, make quantize-aware, export, compare."""

import dataclasses
import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count
from tfprune.common.files import check_writable, write_atomically
from tfprune.drivers.compression.compress_options import CompressOptions
from tfprune.drivers.compression.compression_report import BudgetLine, CompressionReport, PhaseReport
from tfprune.drivers.compression.data import Data, digest, num_batches, prepare
from tfprune.drivers.compression.display import Display
from tfprune.drivers.compression.folder import Folder
from tfprune.drivers.compression.planning import Int8Files, find_macs, latency_ratio, narrow
from tfprune.drivers.compression.training import Phase, initial_rate, set_rate, train
from tfprune.drivers.compression.validation import Validation, check_fit, check_model
from tfprune.exporting import ExportReport, export
from tfprune.exporting.inputs import input_specs
from tfprune.graph.profiling import profile
from tfprune.measure import compare
from tfprune.quantization import quantize_aware
from tfprune.shrinking.budget import Budget

_QUANTIZE = "quantize"


def compress(
    model: keras.Model,
    data: Any,
    *,
    budget: Budget,
    path: str | os.PathLike[str],
    validation: Any = None,
    epochs: int = 12,
    options: CompressOptions | None = None,
) -> CompressionReport:
    """Prune a trained model to a budget, train it for int8, and write a checked `.tflite`: all in one call.

    Channels are removed in steps, the least important ones by L2 norm, with fine-tuning after each; then the model is
    trained with the rounding of int8, exported, and compared with the dense model on data that no step has trained on.
    The model itself is not changed. Python's, NumPy's and TensorFlow's random seeds are set.

    What is done is kept in a folder beside `path` (`model.compress` for `model.tflite`). Where a call is cut off, the
    same call goes on after the last epoch; the same file comes out, if the data comes in the same order: arrays do.

    Args:
        model: A trained and compiled Keras model with one input or several, and one output. Loss, metrics and the
            kind of optimizer are those it is compiled with.
        data: What it was trained on: arrays `(x, y)` or `(x, y, sample_weight)` as for `fit`, `x` scaled as in
            training, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches of these with a known length. Int8
            is calibrated on it too.
        budget: Limits on `parameters`, `macs`, `file_bytes` (here of the int8 file) or `latency`. A limit below 1 is a
            fraction of the dense model's, or of its int8 file's.
        path: Where the file goes; ends in `.tflite`.
        validation: What is measured on, never trained: like `data`. None to set aside a tenth of arrays.
        epochs: Epochs in all: about a sixth for int8, half after the last pruning, the rest after those before.
        options: Steps, learning rates, metric and more; None for the defaults.

    Returns:
        What each phase did, whether the budget is met, and the comparison. Print it for tables.

    Raises:
        FileExistsError: If there is a file at `path` that this call has not written, and `overwrite` is not set.
        TypeError: If an argument has another type.
        ValueError: If the model is not compiled, nothing of it can be pruned, the budget cannot be met, the data does
            not fit, an argument is out of range, or the folder belongs to a call with other arguments.
        RuntimeError: If the loss becomes NaN, or the model cannot be converted.
        ExportMismatchError: If the file computes something else than the model.
        OSError: If `path` or the folder cannot be written.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> compress(model, (np.zeros((20, 4)), np.zeros(20)), budget=Budget(macs=0.5), path="small.tflite")
    Traceback (most recent call last):
    ...
    ValueError: The model 'sequential...' is not compiled: loss, metrics and optimizer for fine-tuning are taken from
    there. Compile it as for its training: model.compile(optimizer, loss, metrics=[...]).
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {budget!r}.")
    if options is not None and not isinstance(options, CompressOptions):
        raise TypeError(f"options must be a tfprune.CompressOptions. Received: {type(options).__name__}.")
    options = options or CompressOptions()
    check_count("epochs", epochs)
    if epochs <= options.steps:
        raise ValueError(
            f"Each of {options.steps} pruning steps and int8 need an epoch: at least {options.steps + 1}. Received: "
            f"epochs={epochs}. Train longer, or pass options=tfprune.CompressOptions(steps={max(1, epochs - 1)})."
        )
    check_model(model)
    target = check_writable(path, ".tflite")
    folder = Folder(target.with_suffix(".compress"))
    ours = target.exists() and not options.restart and folder.has_written(_sha256(target))
    check_writable(target, overwrite=options.overwrite or ours)
    prepared = prepare(model, data, validation, options.seed)
    check_fit(model, prepared)
    return _Pass(model, prepared, budget, folder, epochs, options).run(target)


class _Pass:
    """One call of `compress`, checked."""

    def __init__(
        self, model: keras.Model, data: Data, budget: Budget, folder: Folder, epochs: int, options: CompressOptions
    ) -> None:
        self._dense, self._data, self._budget, self._folder = model, data, budget, folder
        self._epochs, self._options = epochs, options
        self._display = Display(options.progress)
        self._validation = Validation(data.validation, options.metric)
        self._files = Int8Files(folder.path / "sizes", data, options.io_dtype, self._display)

    def run(self, target: Path) -> CompressionReport:
        """Do what is left to do."""
        rate = self._learning_rate()
        goes_on = self._folder.open(self._settings(rate), self._options.restart)
        self._display.say(f"{'Going on with' if goes_on else 'Working in'} {self._folder.path}")
        macs, limits = self._plan()
        phases = self._phases(macs, rate)
        self._display.plan(len(phases) + 1, sum(phase.epochs for phase in phases))
        reports, pruned, aware = self._train(phases, limits)
        self._display.begin("export and compare")
        written = self._export(aware, target)
        named = {"dense": self._dense, "pruned": pruned, "int8": target}
        comparison = compare(named, self._data.validation, metric=self._options.metric, progress=self._options.progress)
        lines = self._budget_lines(limits, pruned, written)
        shutil.rmtree(self._folder.path / "sizes", ignore_errors=True)
        report = CompressionReport(
            path=str(target),
            folder=str(self._folder.path),
            phases=tuple(reports),
            budget=lines,
            validation=self._data.describe(),
            drop=comparison.models[0].score - comparison.models[2].score,
            max_drop=self._options.max_drop,
            comparison=comparison,
            export=written,
        )
        report.save(self._folder.path / "report.json")
        return report

    def _learning_rate(self) -> float:
        if self._options.learning_rate is not None:
            return float(self._options.learning_rate)
        steps = self._epochs * num_batches(self._data.training, self._options.batch_size)
        return initial_rate(self._dense, steps) / 2

    def _settings(self, rate: float) -> dict[str, Any]:
        """What the files depend on. Layers count by class: their names can differ from process to process."""
        classes = str([type(layer).__name__ for layer in self._dense.layers]).encode()
        weights = digest(keras.ops.convert_to_numpy(weight) for weight in self._dense.weights)
        return {
            "model": hashlib.sha256(classes + weights.encode()).hexdigest(),
            "optimizer": type(self._dense.optimizer).__name__,
            **self._data.fingerprint(),
            "budget": self._budget.limits(),
            "epochs": self._epochs,
            **self._options.settings(),
            "learning_rate": rate,
            "metric": getattr(self._options.metric, "name", None) or getattr(self._options.metric, "__name__", None),
        }

    def _plan(self) -> tuple[int, dict[str, float]]:
        """Find how far to prune, and what the dense model is worth, or take it from an earlier call."""
        if "macs" not in self._folder.state:
            self._display.say(f"Looking for a network within {self._budget.limits()}")
            macs, limits = find_macs(self._dense, self._budget, self._files)
            score = self._validation.score(self._dense)
            if not np.isfinite(score):
                raise ValueError(f"The dense model's score on the validation data is {score}. Train it first.")
            self._folder.update(macs=macs, limits=limits, score=score)
        state = self._folder.state
        return state["macs"], state["limits"]

    def _phases(self, macs: int, rate: float) -> list[Phase]:
        dense, steps, seed = profile(self._dense).macs, self._options.steps, self._options.seed
        last = max(1, round(self._epochs / 6))
        each = max(1, (self._epochs - last) // (steps + 2))
        phases = []
        if macs < dense:
            for step in range(1, steps + 1):
                epochs = each if step < steps else self._epochs - last - (steps - 1) * each
                count = round(dense * (macs / dense) ** (step / steps))
                phases.append(Phase(f"prune-{step}", count, epochs, rate, seed + step))
        else:
            self._display.say("The dense model is within the budget: nothing is pruned.")
        aware_rate = self._options.quantize_learning_rate or rate / 10
        return [*phases, Phase(_QUANTIZE, None, last, float(aware_rate), seed)]

    def _train(
        self, phases: list[Phase], limits: dict[str, float]
    ) -> tuple[list[PhaseReport], keras.Model, keras.Model]:
        """Return what each phase did, the pruned model, and the quantize-aware one."""
        dense = profile(self._dense)
        reports = [PhaseReport("dense", 0, 0.0, dense.parameters, dense.macs, self._folder.state["score"])]
        pruned = model = self._dense
        for phase in phases:
            is_last = phase is phases[-2] if len(phases) > 1 else False
            model = self._begin(model, phase, limits if is_last else {})
            pruned = pruned if phase.macs is None else model
            sizes = profile(pruned)
            title = (
                f"{phase.name}: {sizes.macs:,} MACs, epochs: {phase.epochs}, learning rate: {phase.learning_rate:.2g}"
            )
            set_rate(model, phase, num_batches(self._data.training, self._options.batch_size))
            facts = self._folder.finished(phase.name)
            if facts is None:
                self._display.begin(title)
                backups = self._folder.backups(phase.name)
                train(model, phase, self._data, self._options.batch_size, backups, self._display)
                facts = {"score": self._validation.score(model)}
                self._folder.finish(phase.name, model, facts)
            else:
                self._display.skip(title, phase.epochs)
                self._folder.load(phase.name, model)
            self._display.say(f"    score {facts['score']:.4g} (dense {reports[0].score:.4g})")
            reports.append(
                PhaseReport(phase.name, phase.epochs, phase.learning_rate, sizes.parameters, sizes.macs, facts["score"])
            )
        return reports, pruned, model

    def _begin(self, model: keras.Model, phase: Phase, limits: dict[str, float]) -> keras.Model:
        """The model with which a phase begins; made anew where it goes on, as files hold weights but not code."""
        if phase.macs is None:
            return quantize_aware(model)
        return narrow(model, phase.macs, limits, self._files)

    def _export(self, aware: keras.Model, target: Path) -> ExportReport:
        """Write the file, but not before the folder knows that it is ours."""
        own = self._folder.path / "model.tflite"
        samples = dict(zip(input_specs(aware), self._data.samples(self._dense).values(), strict=True))
        io_dtype = self._options.io_dtype
        report = export(aware, own, quantize="int8", calibration=samples, io_dtype=io_dtype, overwrite=True)
        self._folder.update(written=_sha256(own))
        write_atomically(target, own.read_bytes())
        own.unlink()
        return dataclasses.replace(report, path=str(target))

    def _budget_lines(
        self, limits: dict[str, float], pruned: keras.Model, written: ExportReport
    ) -> tuple[BudgetLine, ...]:
        found = profile(pruned)
        reached: dict[str, float] = {
            "parameters": found.parameters,
            "macs": found.macs,
            "file_bytes": written.file_bytes,
        }
        if "latency" in limits:
            reached["latency"] = latency_ratio(self._files.path(self._dense), Path(written.path))
        lines = [BudgetLine(name, limit, reached[name], reached[name] <= limit) for name, limit in limits.items()]
        for line in lines:
            if not line.met:
                warnings.warn(
                    f"The budget is not met: {line.name} is {line.reached:g}, and was to be {line.limit:g} at most.",
                    stacklevel=4,
                )
        return tuple(lines)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
