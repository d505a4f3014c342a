"""What a report tells, gathered from models, files, a training and exports."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfprune.common.names import told_apart
from tfprune.exporting.export_report import ExportReport
from tfprune.exporting.operators import OperatorCount, count_operators, integer_mode
from tfprune.exporting.reasons import FloatOperator, float_operators
from tfprune.graph import ChannelGroups, channel_groups, multiply_accumulates, nested, walk
from tfprune.html_report.history import Curves, printable, read_history
from tfprune.html_report.matching import Kind
from tfprune.measure.comparing import compare
from tfprune.measure.comparison import Comparison
from tfprune.measure.entries import Entry
from tfprune.measure.file_costs import Costs
from tfprune.measure.opening import open_entries
from tfprune.parts.kernels import Kernel, kernels
from tfprune.schedules import Schedule
from tfprune.tflite.unpacking import TFLiteFile
from tfprune.training.masks import living_weights


@dataclass(frozen=True)
class ModelFacts:
    """One model or file.

    Attributes:
        name: What it is called.
        costs: Weights, nonzeros and MACs.
        file_bytes: Size of a `.tflite` file; None for a Keras model, which is none yet.
        widths: Of a Keras model, how many channels come out of each layer that multiplies.
        macs: Of a Keras model, the multiply-accumulates of the same layers.
        densities: Of a Keras model, the density of each trainable kernel.
        layer_kinds: Of the same layers, what those of other models must have in common with them to stand beside them.
        kernel_kinds: The same of the kernels.
        groups: Of a Keras model, its channel groups.
    """

    name: str
    costs: Costs
    file_bytes: int | None
    widths: dict[str, float]
    macs: dict[str, float]
    densities: dict[str, float]
    layer_kinds: dict[str, Kind]
    kernel_kinds: dict[str, Kind]
    groups: ChannelGroups | None


@dataclass(frozen=True)
class ExportFacts:
    """What is in one `.tflite` file.

    Attributes:
        name: What it is called.
        operators: Its operators, with the dtype that they compute in.
        in_float: Those left in float in a file that computes in integers, and why.
        report: What `export` said of it; None if there is only the file.
    """

    name: str
    operators: tuple[OperatorCount, ...]
    in_float: tuple[FloatOperator, ...]
    report: ExportReport | None


@dataclass(frozen=True)
class Facts:
    """All that a report tells; what is empty is left out.

    Attributes:
        models: The models and files; the first is what the others are compared with.
        comparison: What they are worth on data; None without data.
        history: The values of a training over its epochs.
        schedules: Schedules by name.
        exports: What is in the `.tflite` files.
    """

    models: tuple[ModelFacts, ...]
    comparison: Comparison | None
    history: Curves
    schedules: dict[str, Schedule]
    exports: tuple[ExportFacts, ...]


def gather(models: Any, data: Any, history: Any, schedules: Any, exports: Any) -> Facts:
    """Check all that was given, then count and measure; the arguments are those of `write_report`."""
    curves, named_schedules = read_history(history), _schedules(schedules)
    reports = _reports(exports)
    contents = [_export(each) for each in reports]
    entries = open_entries(models)
    opened = dict(zip(told_apart(printable(entry.name) for entry in entries), (e.source for e in entries), strict=True))
    found = tuple(_model(name, entry) for name, entry in zip(opened, entries, strict=True))
    told = {Path(each.path if isinstance(each, ExportReport) else each).resolve() for each in reports}
    files = [path for path in opened.values() if isinstance(path, Path)]
    contents += [_export(path) for path in dict.fromkeys(files) if path.resolve() not in told]
    comparison = None if data is None else compare(opened, data)
    return Facts(found, comparison, curves, named_schedules, tuple(contents))


def _model(name: str, entry: Entry) -> ModelFacts:
    given = entry.source
    if isinstance(given, Path):
        return ModelFacts(name, entry.costs(), given.stat().st_size, {}, {}, {}, {}, {}, None)
    widths: dict[str, float] = {}
    macs: dict[str, float] = {}
    kinds: dict[str, Kind] = {}
    _add_layers(given, "", widths, macs, kinds)
    found = kernels(given, exclude=_cannot_be_pruned)
    densities = {kernel.name: float(living_weights(kernel.variable).mean()) for kernel in found}
    kernel_kinds = {kernel.name: _kernel_kind(kernel) for kernel in found}
    return ModelFacts(name, entry.costs(), None, widths, macs, densities, kinds, kernel_kinds, channel_groups(given))


def _cannot_be_pruned(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def _add_layers(
    model: keras.Model, prefix: str, widths: dict[str, float], macs: dict[str, float], kinds: dict[str, Kind]
) -> None:
    for node in walk(model):
        layer, inner = node.operation, nested(node, own_sizes=True)
        name = prefix + layer.name
        if inner is not None:
            _add_layers(inner, f"{name}/", widths, macs, kinds)
        elif operations := multiply_accumulates(node):
            axis = 0 if getattr(layer, "data_format", None) == "channels_first" else -1
            widths[name] = node.output_shapes[0][axis] or 0
            macs[name] = macs.get(name, 0) + operations
            kinds[name] = _layer_kind(layer)


def _layer_kind(layer: keras.layers.Layer) -> Kind:
    """What a layer multiplies by, whatever it is wrapped in: with other widths it is of the same kind."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    size = tuple(getattr(layer, "kernel_size", ()))
    # Quantize-aware, a separable convolution is a depthwise one and a plain one, which its row stands for.
    return (_plain(layer), (1,) * len(size) if hasattr(layer, "pointwise_kernel") else size)


def _kernel_kind(kernel: Kernel) -> Kind:
    size = tuple(kernel.variable.shape[:-2])
    if kernel.depthwise:
        return ("depthwise", size)
    return (_plain(kernel.layer), kernel.variable.name.removeprefix("pointwise_"), size)


def _plain(layer: keras.layers.Layer) -> str:
    return type(layer).__name__.removeprefix("Separable")


def _schedules(given: Any) -> dict[str, Schedule]:
    if given is None:
        return {}
    named = {type(given).__name__: given} if isinstance(given, Schedule) else given
    if not isinstance(named, Mapping) or not all(isinstance(each, Schedule) for each in named.values()):
        raise TypeError(
            "schedules is a schedule of tfprune.schedules, or a dict of them by name, such as "
            f"{{'sparsity': Polynomial(0.9, end=1000)}}. Received: {given!r}."
        )
    for schedule in named.values():
        schedule.value(schedule.begin)  # a ValueError where it has no end, and needs one
    return dict(zip(told_apart(printable(str(name)) for name in named), named.values(), strict=True))


def _reports(given: Any) -> list[ExportReport | Path]:
    if isinstance(given, ExportReport | str | os.PathLike) or not isinstance(given, Iterable):
        raise TypeError(f"exports is a list of what export() returned, or of paths. Received: {given!r}.")
    found: list[ExportReport | Path] = []
    for each in given:
        if not isinstance(each, ExportReport | str | os.PathLike):
            raise TypeError(f"exports holds what export() returned, or paths of .tflite files. Received: {each!r}.")
        found.append(each if isinstance(each, ExportReport) else Path(each))
    return found


def _export(given: ExportReport | Path) -> ExportFacts:
    if isinstance(given, ExportReport):
        return ExportFacts(printable(Path(given.path).name), given.operators, given.float_operators, given)
    file = TFLiteFile.read(given)
    try:
        operators = count_operators(file)
    except ValueError as error:
        raise ValueError(f"{str(given)!r} is cut short, or no .tflite file: {error}. Export it again.") from error
    return ExportFacts(printable(given.name), operators, float_operators(file, integer_mode(operators)), None)
