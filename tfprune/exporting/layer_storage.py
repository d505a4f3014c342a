"""A float file with each layer stored as was asked: weights as small integers, or all of it in int8."""

from collections.abc import Iterable, Mapping

import tensorflow as tf

# Private: the public way to it, tf.lite.experimental.QuantizationDebugger, converts on its own, without a stop between
# calibration and quantization. tests/exporting/test_layer_precisions.py fails when it moves.
from tensorflow.lite.python.convert import mlir_quantize

from tfprune.common.native_logs import hidden_native_logs
from tfprune.exporting.layer_operators import LayerOperator, NotStorableError
from tfprune.exporting.modes import MODES
from tfprune.exporting.weight_blocks import can_have_blocks, store_in_blocks, unfit_for_blocks
from tfprune.exporting.weight_only import quantize_weights
from tfprune.tflite.unpacking import TFLiteFile, type_name


def store_weights(
    file: TFLiteFile,
    quantize: str | None,
    operators: Iterable[LayerOperator],
    others: Mapping[str, str | None],
    block_size: int | None = None,
) -> TFLiteFile:
    """Return a float file with its weights as small integers.

    Args:
        file: The file.
        quantize: The mode: one that stores weights.
        operators: The operators of the file, for messages.
        others: For operators, by the tensor that they make, another such mode, or None for float32.
        block_size: How many weights have a scale together, if they are in 4 bits; None for an output channel.

    Returns:
        The new file.

    Raises:
        ValueError: If a kernel does not divide into blocks, or none can.
        RuntimeError: If the weights cannot be stored.
    """
    bits = {output: MODES[mode].weight_bits if mode else 0 for output, mode in others.items()}
    blocks: set[str] = set()
    if block_size is not None:
        blocks = {output for output in can_have_blocks(file) if bits.get(output, MODES[quantize].weight_bits) == 4}
        unfit = set(unfit_for_blocks(file, blocks, block_size))
        _check_blocks([each for each in operators if each.output in unfit], bool(blocks), block_size)
    content = quantize_weights(file.content, MODES[quantize].weight_bits, {**bits, **dict.fromkeys(blocks, 0)})
    stored = TFLiteFile(content)
    return stored if block_size is None else store_in_blocks(stored, blocks, block_size)


def _check_blocks(unfit: list[LayerOperator], have_any: bool, block_size: int) -> None:
    if not have_any:
        raise ValueError(
            "block_size does nothing here: no convolution or Dense kernel is stored in 4 bits. Leave it out."
        )
    if unfit:
        names = ", ".join(" with ".join(each.layers) or each.output for each in unfit)
        raise ValueError(
            f"These layers do not divide into blocks of {block_size}: {names}. What one output channel reads (kernel "
            "height x width x input channels) has to be a multiple. Take a smaller block_size, or store them "
            'in another way: LayerPrecisions(overrides={layer: "int8_weights"}) or exclude=[layer].'
        )


def quantize_but(calibrated: bytes, excluded: list[LayerOperator], io_dtype: str) -> bytes:
    """Return a calibrated float model in int8, with some operators left in float.

    Args:
        calibrated: The converter's float model, whose tensors have the smallest and largest value seen.
        excluded: The operators that are left in float.
        io_dtype: dtype of the file's inputs and outputs.

    Returns:
        The file.

    Raises:
        NotStorableError: If the converter quantizes one of them nevertheless.
    """
    dtype = tf.as_dtype(io_dtype)
    with hidden_native_logs():
        result: bytes = mlir_quantize(
            calibrated,
            input_data_type=dtype,
            output_data_type=dtype,
            denylisted_nodes=[each.output for each in excluded],
            disable_per_channel_for_dense_layers=True,  # as the converter is set up
        )
    stored = {
        tensor.name.decode() for tensor in TFLiteFile(result).model.subgraphs[0].tensors if type_name(tensor) == "int8"
    }
    kept = sorted({layer for each in excluded if each.kernel in stored for layer in each.layers})
    if kept:
        raise NotStorableError(
            f"TensorFlow's converter does not leave {kept} in float: it knows an operator by a name that it changes on "
            "the way, as of transposed convolutions. Take them out of exclude, or use tfprune.quantize_aware(model, "
            "exclude=[...])."
        )
    return result
