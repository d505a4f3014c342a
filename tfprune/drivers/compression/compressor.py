"""`compress`: prune in steps, fine-tune between, make quantize-aware, export, compare."""

import dataclasses
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count
from tfprune.common.files import check_writable
from tfprune.data.fingerprints import model_fingerprint
from tfprune.distillation import Distilled
from tfprune.drivers.compression.answers import answers, is_unlabelled
from tfprune.drivers.compression.choosing import Chooser
from tfprune.drivers.compression.compress_options import CompressOptions, Preset, preset
from tfprune.drivers.compression.compression_report import CompressionReport, PhaseReport
from tfprune.drivers.compression.fitness import check_fit, check_model, warn_of_ranges, why_it_cannot_teach
from tfprune.drivers.compression.planning import Int8Files, find_macs
from tfprune.drivers.compression.result import budget_lines, sha256, write_file
from tfprune.drivers.compression.steps import QUANTIZE, Steps, first_rate
from tfprune.drivers.data import Data, prepare
from tfprune.drivers.display import Display
from tfprune.drivers.folder import Folder
from tfprune.drivers.phases import Phase
from tfprune.drivers.runs import Run
from tfprune.drivers.validation import Validation
from tfprune.graph.profiling import profile
from tfprune.measure import compare
from tfprune.shrinking.budget import Budget

HOW_TO_RESTART = "pass options=tfprune.CompressOptions(restart=True)"
"""What messages tell a user of `compress`."""


def compress(
    model: keras.Model,
    data: Any,
    *,
    budget: Budget,
    path: str | os.PathLike[str],
    validation: Any = None,
    epochs: int | None = None,
    options: CompressOptions | Preset = "balanced",
) -> CompressionReport:
    """Prune a trained model to a budget, train it for int8, and write a checked `.tflite`: all in one call.

    What the data says of each channel, for the operations that it costs, decides which ones go. What is left is
    repaired by least squares and fine-tuned, with the dense model as a teacher beside the labels; then it is trained
    with the rounding of int8, exported, and compared with the dense model on data that no step has trained on. The
    model itself is not changed. Python's, NumPy's and TensorFlow's random seeds are set.

    What is done is kept in a folder beside `path` (`model.compress` for `model.tflite`). Where a call is cut off, the
    same call goes on after the last epoch; the same file comes out, if the data comes in the same order: arrays do.

    Args:
        model: A trained and compiled Keras model with one input or several, and one output. Loss, metrics and the
            kind of optimizer are those it is compiled with.
        data: What it was trained on: arrays `(x, y)` or `(x, y, sample_weight)` as for `fit`, `x` scaled as in
            training, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches of these with a known length. Int8
            is calibrated on it too. Of `x` alone, without labels, what the model answers takes their place.
        budget: Limits on `parameters`, `macs`, `weight_bytes`, `file_bytes` or `latency`. A limit below 1 is a fraction
            of the dense model's, or of its int8 file's.
        path: Where the file goes; ends in `.tflite`.
        validation: What is measured on, never trained: like `data`. None to set aside a tenth of arrays.
        epochs: Epochs in all, of which about a sixth goes to int8. None for what the preset says: 4, 12 or 30.
        options: `"fast"`, `"balanced"` or `"best"`; or `tfprune.CompressOptions` to turn parts off and choose steps,
            learning rates, metric and more.

    Returns:
        What each phase did, whether the budget is met, and the comparison. Print it for tables.

    Raises:
        FileExistsError: If there is a file at `path` that this call has not written, and `overwrite` is not set.
        TypeError: If an argument has another type.
        ValueError: If the model is not compiled, nothing of it can be pruned, the budget cannot be met, the data does
            not fit, an argument is out of range, or the folder belongs to a call with other arguments.
        RuntimeError: If the loss becomes NaN, the model cannot be converted, or another call works in the folder.
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
    options, epochs = preset(options, epochs)
    check_count("epochs", epochs)
    least = options.steps + options.quantization_aware
    if epochs < least:
        raise ValueError(
            f"Each of {options.steps} pruning steps and int8 need an epoch: at least {least}. Received: "
            f"epochs={epochs}. Train longer, or pass options=tfprune.CompressOptions(steps={max(1, epochs - 1)})."
        )
    if isinstance(model, Distilled):
        raise ValueError(
            f"{model.name!r} is distilled. Give tfprune.strip(model), compiled; compress teaches by itself."
        )
    check_model(model)
    target = check_writable(path, ".tflite")
    folder = Folder(target.with_suffix(".compress"), HOW_TO_RESTART)
    ours = target.exists() and not options.restart and folder.notes.get("written") == sha256(target)
    check_writable(target, overwrite=options.overwrite or ours)
    answered = is_unlabelled(data)
    labelled = (data, answers(model, data)) if answered else data
    prepared = dataclasses.replace(prepare(model, labelled, validation, options.seed), answered=answered)
    check_fit(model, prepared)
    if options.teacher and (why := why_it_cannot_teach(model)):
        warnings.warn(
            f"The dense model does not teach, labels alone do: {why} CompressOptions(teacher=False) says so at once.",
            stacklevel=2,
        )
        options = dataclasses.replace(options, teacher=False)
    warn_of_ranges(model, prepared)
    return _Pass(model, prepared, budget, epochs, options).run(target, folder.path)


class _Pass:
    """One call of `compress`, checked."""

    def __init__(self, model: keras.Model, data: Data, budget: Budget, epochs: int, options: CompressOptions) -> None:
        self._dense, self._data, self._budget = model, data, budget
        self._epochs, self._options = epochs, options
        self._rate = first_rate(model, data, epochs, options)
        self._validation = Validation(data.validation, options.metric)

    def run(self, target: Path, folder: Path) -> CompressionReport:
        """Do what is left to do."""
        options, display = self._options, Display(self._options.progress)
        settings = self._settings()
        with Run(folder, settings, restart=options.restart, display=display, how_to_restart=HOW_TO_RESTART) as run:
            files = Int8Files(run.path / "sizes", self._data, options.io_dtype, display)
            chooser = Chooser(self._data.training, options.informed, options.granularity())
            macs, limits = self._plan(run, files, chooser)
            steps = self._steps(files, chooser, run)
            phases, pruned, aware = self._train(run, steps.phases(profile(self._dense).macs, macs, limits))
            display.begin("export and compare")
            written = write_file(aware, target, self._data.samples(self._dense), options.io_dtype, run)
            named = {"dense": self._dense, "pruned": pruned, "int8": target}
            comparison = compare(named, self._data.validation, metric=options.metric, progress=options.progress)
            report = CompressionReport(
                path=str(target),
                folder=str(run.path),
                phases=tuple(phases),
                budget=budget_lines(limits, self._dense, pruned, written, files),
                validation=self._data.describe(),
                drop=comparison.models[0].score - comparison.models[2].score,
                max_drop=options.max_drop,
                comparison=comparison,
                export=written,
            )
            shutil.rmtree(run.path / "sizes", ignore_errors=True)
            report.save(run.path / "report.json")
        _warn(report)
        return report

    def _settings(self) -> dict[str, Any]:
        """What the files depend on."""
        metric = self._options.metric
        return {
            "run": "compress",
            "model": model_fingerprint(self._dense),
            "optimizer": type(self._dense.optimizer).__name__,
            **self._data.fingerprint(),
            "budget": self._budget.limits(),
            "epochs": self._epochs,
            **self._options.settings(),
            "learning_rate": self._rate,
            "metric": getattr(metric, "name", None) or getattr(metric, "__name__", None),
        }

    def _plan(self, run: Run, files: Int8Files, chooser: Chooser) -> tuple[int, dict[str, float]]:
        """Find how far to prune, and what the dense model is worth, or take it from an earlier call."""
        if "macs" not in run.notes:
            run.display.say(f"Looking for a network within {self._budget.limits()}")
            macs, limits = find_macs(self._dense, self._budget, files, chooser)
            run.display.say("Measuring the dense model on the validation data")
            score = self._validation.score(self._dense)
            if not np.isfinite(score):
                raise ValueError(f"The dense model's score on the validation data is {score}. Train it first.")
            run.note(macs=macs, limits=limits, score=score)
        return run.notes["macs"], run.notes["limits"]

    def _steps(self, files: Int8Files, chooser: Chooser, run: Run) -> Steps:
        return Steps(
            self._data,
            self._validation,
            files,
            chooser,
            run,
            teacher=self._dense if self._options.teacher else None,
            epochs=self._epochs,
            learning_rate=self._rate,
            options=self._options,
        )

    def _train(self, run: Run, phases: list[Phase]) -> tuple[list[PhaseReport], keras.Model, keras.Model]:
        """Return what each phase did, the pruned model, and the quantize-aware one."""
        if all(phase.name == QUANTIZE for phase in phases):
            run.display.say("The dense model is within the budget: nothing is pruned.")
        run.display.plan(len(phases) + 1, sum(phase.epochs for phase in phases))
        pruned = model = self._dense
        dense = run.notes["score"]
        reports = [_phase_report("dense", {}, pruned, dense)]
        for phase, (record, model) in zip(phases, run.follow(phases, self._dense), strict=True):
            pruned = pruned if record.name == QUANTIZE else model
            untrained = {when: run.notes.get(f"{record.name} {when}") for when in ("cut", "repaired")}
            score = record.facts["score"]
            reports.append(_phase_report(record.name, phase.all_settings(), pruned, score, **untrained))
            run.display.say(f"    {reports[-1].macs:,} MACs, score {record.facts['score']:.4g} (dense {dense:.4g})")
        return reports, pruned, model


def _phase_report(
    name: str, settings: dict[str, Any], model: keras.Model, score: float, **untrained: float | None
) -> PhaseReport:
    sizes, epochs, rate = profile(model), settings.get("epochs", 0), settings.get("learning_rate", 0.0)
    return PhaseReport(name, epochs, rate, sizes.parameters, sizes.macs, score, **untrained)


def _warn(report: CompressionReport) -> None:
    for line in report.budget:
        if not line.met:
            warnings.warn(
                f"The budget is not met: {line.name} is {line.reached:g}, and was to be {line.limit:g} at most.",
                stacklevel=4,
            )
