"""A Keras model as the bytes of a `.tflite` file.

The road is `keras.export.ExportArchive` -> SavedModel -> `TFLiteConverter`. The shorter ones were tried:
`from_keras_model` and `model.export(format="litert")` leave the batch open and print; `from_concrete_functions`
keeps unfrozen variables with its `trackable_obj`, and is deprecated and without a signature otherwise.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.common.native_logs import hidden_native_logs
from tfprune.exporting.inputs import Samples, call, input_specs
from tfprune.exporting.layer_operators import NotStorableError, layer_operators, operator_settings
from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.layer_storage import quantize_but, store_weights
from tfprune.exporting.modes import MODES, Mode
from tfprune.exporting.ranges import widen_ranges
from tfprune.exporting.signature import name_outputs
from tfprune.exporting.sparsity import finish_sparse
from tfprune.graph import Node, functional, is_graph, walk
from tfprune.graph.chains import chains
from tfprune.graph.subclassed import first_line
from tfprune.quantization import (
    activation_change,
    fold_normalizations,
    is_quantize_aware,
    lowered,
    operator_form,
    without_barriers,
)
from tfprune.rewriting.engine import Rewriter
from tfprune.tflite.unpacking import TFLiteFile

SIGNATURE = "serving_default"
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf"}


def to_tflite(
    model: keras.Model,
    quantize: str | None,
    samples: Samples | None,
    io_dtype: str,
    sparse: bool = False,
    integer_doors: bool = False,
    fold: bool = True,
    precisions: LayerPrecisions | None = None,
) -> TFLiteFile:
    """Return `model` as a `.tflite` file with a static batch of 1. The model itself stays as it is.

    Args:
        model: A built model with known inputs.
        quantize: The mode: a key of `MODES`.
        samples: Calibration samples; needed for modes that are calibrated, but for a quantize-aware model.
        io_dtype: dtype of the file's float inputs and outputs: one of the mode's `io_dtypes`.
        sparse: Whether to store kernels sparse where that makes them smaller.
        integer_doors: Whether layers in float, too, read integers from outside, in the file of a quantize-aware model.
        fold: Whether each BatchNormalization that its readers can take becomes part of them.
        precisions: Layers that are stored in another way than the mode says.

    Returns:
        The file.

    Raises:
        ValueError: If a model with loops or branches is to be calibrated, `sparse` makes nothing smaller, or a layer
            cannot be stored as `precisions` say.
        RuntimeError: If the converter refuses the model.
    """
    aware = is_quantize_aware(model)
    source = float32_twin(lowered(model, integer_doors)) if aware else _plain(model, quantize, fold)
    finish = None
    if precisions is not None and MODES[quantize].num_levels:
        finish = _Excluding(model, precisions, io_dtype)
    file = TFLiteFile(_convert(source, input_specs(model), quantize, samples, io_dtype, sparse, finish))
    file = name_outputs(without_barriers(file) if aware else file, model)
    if MODES[quantize].weight_bits:
        precisions = precisions or LayerPrecisions()
        operators = layer_operators(file, model)
        others = operator_settings(operators, model, precisions)
        file = store_weights(file, quantize, operators, others, precisions.block_size)
    return finish_sparse(file) if sparse else file


def calibrated_model(model: keras.Model, samples: Samples, io_dtype: str) -> tuple[TFLiteFile, int]:
    """Return what int8 files are made of: the converter's float model, whose tensors have the measured ranges.

    Args:
        model: A built model with known inputs; not one that is quantize-aware.
        samples: Calibration samples.
        io_dtype: dtype of the inputs and outputs of the int8 files.

    Returns:
        The model, and by how many bytes a file of the converter is larger than one of `quantize_but`.

    Raises:
        ValueError: If a model with loops or branches is to be calibrated.
        RuntimeError: If the converter refuses the model.
    """
    kept: list[tuple[bytes, bytes]] = []

    def finish(calibrated: bytes) -> bytes:
        kept.append((calibrated, quantize_but(calibrated, [], io_dtype)))
        return kept[0][1]

    whole = _convert(_plain(model, "int8", True), input_specs(model), "int8", samples, io_dtype, False, finish)
    ((calibrated, quantized),) = kept
    file = name_outputs(TFLiteFile(whole), model)
    return TFLiteFile(calibrated), len(file.content) - len(name_outputs(TFLiteFile(quantized), model).content)


def _plain(model: keras.Model, quantize: str | None, fold: bool) -> keras.Model:
    source = float32_twin(model)
    return fold_normalizations(source, rounds=MODES[quantize].quantizes) if fold else source


def _convert(
    model: keras.Model,
    specs: dict[str, tf.TensorSpec],
    quantize: str | None,
    samples: Samples | None,
    io_dtype: str,
    sparse: bool,
    finish: Callable[[bytes], bytes] | None = None,
) -> bytes:
    mode = MODES[quantize]
    with tempfile.TemporaryDirectory() as folder:
        forward = _save(_with_operator_forms(model), list(specs.values()), folder)
        if samples is not None and mode.is_calibrated:
            _refuse_control_flow(model, forward, quantize)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        _set_up(converter, mode, samples, io_dtype, sparse, finish)
        with warnings.catch_warnings():
            # the converter's own calibrator uses the interpreter that TensorFlow is about to drop
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            try:
                with hidden_native_logs():
                    return converter.convert()
            except NotStorableError:
                raise
            except Exception as error:  # the converter's ConverterError is private and derives from Exception
                raise RuntimeError(_explain(model, quantize, error)) from error


def float32_twin(model: keras.Model) -> keras.Model:
    """Return `model`, or if it computes in another precision a float32 copy with the same weights.

    The runtime has no kernels of half or double precision.

    Args:
        model: A built model, functional or sequential.

    Returns:
        The model itself if all of its layers compute in float32.
    """
    return _Float32().rewrite(model, trains=False) if _computes_in(model, _OTHER_PRECISIONS) else model


class _Float32(Rewriter):
    def opened(self, node: Node) -> keras.Model | None:
        return node.operation if is_graph(node.operation) else None

    def copy(self, layer: Any) -> Any:
        return self.copies.of(layer, **self._changes(layer))

    def _changes(self, layer: Any) -> dict[str, Any]:
        # Of a layer that stays as it is nobody asks the config, which may be wrong.
        return _as_float32(layer.get_config()) if _computes_in(layer, _OTHER_PRECISIONS) else {}


def _with_operator_forms(model: keras.Model) -> keras.Model:
    """The model, or a copy in which some layers have the form that every runtime has an operator for."""
    is_needed = any(operator_form(each) or activation_change(each) for each in _operations(model))
    return _Formed().rewrite(model, trains=False) if is_needed else model


class _Formed(_Float32):
    def copy(self, layer: Any) -> Any:
        return self.copies.once(("form", id(layer)), lambda: operator_form(layer)) or super().copy(layer)

    def _changes(self, layer: Any) -> dict[str, Any]:
        return {**super()._changes(layer), **activation_change(layer)}


def _operations(model: keras.Model) -> Iterator[Any]:
    for node in walk(functional(model)):
        if is_graph(node.operation):
            yield from _operations(node.operation)
        else:
            yield node.operation


def uses_half_precision(model: keras.Model) -> bool:
    """Return whether any layer of `model` computes in float16 or bfloat16."""
    return _computes_in(model, ("float16",))


_OTHER_PRECISIONS = ("float16", "float64")
"""How the names of policies end that are not float32: float16, bfloat16, mixed_float16, mixed_bfloat16, float64."""


def _computes_in(layer: Any, precisions: tuple[str, ...]) -> bool:
    """Whether a layer, or one inside it, has a policy with such an end."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    layers = [layer, *(chain[-1] for chain in chains(layer))]
    return any(_policy(each).endswith(precisions) for each in layers if not isinstance(each, keras.Model))


def _policy(layer: keras.layers.Layer) -> str:
    return layer.dtype_policy.name if type(layer.dtype_policy) is keras.DTypePolicy else ""


def _save(model: keras.Model, specs: list[tf.TensorSpec], folder: str) -> Any:
    # a flat list: what the converter makes of dicts has neither their order nor all of their keys
    flat = lambda *tensors: keras.tree.flatten(call(model, list(tensors)))  # noqa: E731
    forward = tf.function(flat, input_signature=specs, autograph=False)
    try:
        concrete = forward.get_concrete_function()
    except Exception as error:  # whatever a layer raises that only runs eagerly
        raise RuntimeError(
            f"The model {model.name!r} cannot be run as a TensorFlow graph, of which a file is made: "
            f"{first_line(error)} Write that layer with operations of keras.ops on sizes that are known, or replace it."
        ) from error
    archive = keras.export.ExportArchive()
    archive.track(functional(model))  # without its optimizer, whose state need not be savable
    archive.add_endpoint(SIGNATURE, forward)
    archive.write_out(folder, verbose=False)
    return concrete


def _refuse_control_flow(model: keras.Model, forward: Any, quantize: str | None) -> None:
    graph = forward.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    found = sorted({node.op for node in nodes} & _CONTROL_FLOW)
    if found:  # the converter's calibrator does not raise on these, it kills the process (TensorFlow 2.21)
        raise ValueError(
            f"Model {model.name!r} has loops or branches ({', '.join(found)}), which cannot be calibrated for "
            f"quantize={quantize!r}. "
            'Build its recurrent layers with unroll=True, or use quantize="dynamic" or "float16".'
        )


def _set_up(
    converter: Any,
    mode: Mode,
    samples: Samples | None,
    io_dtype: str,
    sparse: bool,
    finish: Callable[[bytes], bytes] | None,
) -> None:
    optimizations = [tf.lite.Optimize.DEFAULT] if mode.optimizes else []
    converter.optimizations = [*optimizations, *([tf.lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else [])]
    # One scale per Dense kernel, for runtimes that many devices have: tflite-runtime 2.14 refuses per-channel ones
    # in dynamic-range files; in int8 files it runs them, but the operator's version does not mention them, so a
    # runtime without them could not tell. It costs about 5% more int8 error, and the option has no public name.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if mode.types:
        converter.target_spec.supported_types = list(mode.types)
    if mode.is_calibrated:
        if samples is not None:
            converter.representative_dataset = lambda: _one_by_one(samples)
            converter.target_spec.supported_ops = list(mode.operator_sets)
            _widen_between(converter, mode.num_levels, finish)
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io_dtype)


def _widen_between(converter: Any, num_levels: int, finish: Callable[[bytes], bytes] | None) -> None:
    """Let the converter stop between calibration and quantization, to widen ranges; no public way leads there.

    Its own step is taken twice: to calibrate alone, and with nothing to feed, which leaves the ranges as they are;
    or once, if something else finishes.
    """
    quantize = converter._quantize

    def calibrate_then_quantize(model: bytes, *arguments: Any, **options: Any) -> bytes:
        converter._experimental_calibrate_only = True
        calibrated = quantize(model, *arguments, **options)
        converter._experimental_calibrate_only = False
        widened = widen_ranges(calibrated, num_levels)
        if finish is not None:
            return finish(widened)
        converter.representative_dataset = lambda: iter(())
        result: bytes = quantize(widened, *arguments, **options)
        return result

    converter._quantize = calibrate_then_quantize


class _Excluding:
    """Quantizes a calibrated model to int8, but for some layers."""

    def __init__(self, model: keras.Model, precisions: LayerPrecisions, io_dtype: str) -> None:
        self.model, self.precisions, self.io_dtype = model, precisions, io_dtype

    def __call__(self, calibrated: bytes) -> bytes:
        operators = layer_operators(TFLiteFile(calibrated), self.model)
        excluded = operator_settings(operators, self.model, self.precisions)
        return quantize_but(calibrated, [each for each in operators if each.output in excluded], self.io_dtype)


def _one_by_one(samples: Samples) -> Iterator[dict[str, np.ndarray]]:
    for row in range(len(next(iter(samples.values())))):
        yield {name: array[row : row + 1] for name, array in samples.items()}


def _explain(model: keras.Model, quantize: str | None, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if any("inference_input_type" in line for line in lines):  # which it says of files without an integer operator
        return (
            f"Nothing in model {model.name!r} computes in integers, so there is no file with quantize={quantize!r}: "
            "its layers have no integer form, or were left in float. "
            'Use quantize="dynamic" or "float16" on the plain model.'
        )
    names = [line for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    reason = "; ".join(f"LiteRT lacks the {line}" for line in names) or lines[0][:300]
    return (
        f"TensorFlow's converter could not convert model {model.name!r} with quantize={quantize!r}: {reason}. "
        "Replace the layer that it names by one that LiteRT has, or try another quantize mode."
    )


def _as_float32(config: Any) -> Any:
    """Return a config with float32 in place of every policy of another precision."""
    if isinstance(config, list | tuple):
        return type(config)(map(_as_float32, config))
    if not isinstance(config, dict):
        return config
    name = config.get("config", {}).get("name", "") if config.get("class_name") == "DTypePolicy" else ""
    if name.endswith(_OTHER_PRECISIONS):
        return {**config, "config": {**config["config"], "name": "float32"}}
    return {key: _as_float32(value) for key, value in config.items()}
