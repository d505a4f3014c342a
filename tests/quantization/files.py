"""Quantize-aware models as `.tflite` files, and how far the two are apart."""

import tempfile

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfprune.exporting.convert import float32_twin
from tfprune.exporting.operators import count_operators
from tfprune.quantization import lowered, without_barriers
from tfprune.tflite.unpacking import TFLiteFile, operator_name, unpack

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def to_file(model):
    """The `.tflite` file of a model that `lowered` returned; its inputs and outputs are float."""
    specs = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, f"in_{i}") for i, t in enumerate(model.inputs)]

    def forward(*tensors):
        packed = keras.tree.pack_sequence_as(model.input, list(tensors)) if len(tensors) > 1 else tensors[0]
        if len(tensors) == 1 and isinstance(model.input, dict):
            packed = dict.fromkeys(model.input, tensors[0])
        outputs = keras.tree.flatten(model(packed, training=False))
        return {f"out_{index}": tf.identity(output) for index, output in enumerate(outputs)}

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", tf.function(forward, input_signature=specs, autograph=False))
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        return converter.convert()


def aware_file(model):
    """The `.tflite` file of a quantize-aware model."""
    return without_barriers(TFLiteFile(to_file(float32_twin(lowered(model))))).content


def run(content, inputs, reference=False):
    """The outputs of a file for a list of arrays, sample by sample; `reference` for the plainest kernels."""
    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    runner = interpreter.get_signature_runner()
    rows = [runner(**{f"in_{i}": x[row : row + 1] for i, x in enumerate(inputs)}) for row in range(len(inputs[0]))]
    return [np.concatenate([row[f"out_{index}"] for row in rows]) for index in range(len(rows[0]))]


def float_operators(content):
    """The names of the operators that compute in float."""
    return {each.name for each in count_operators(TFLiteFile(content)) if "float" in each.dtype} - set(CONVERSIONS)


def output_scales(content):
    """The scale of each output; 0 if it is not made from integers."""
    file = unpack(content)
    graph = file.subgraphs[0]
    makers = {int(index): each for each in graph.operators for index in each.outputs}
    names = {each.name.decode(): int(each.tensorIndex) for each in file.signatureDefs[0].outputs}
    scales = []
    for number in range(len(names)):
        maker = makers.get(names[f"out_{number}"])
        is_integer = maker is not None and operator_name(file, maker) == "DEQUANTIZE"
        scales.append(float(graph.tensors[maker.inputs[0]].quantization.scale[0]) if is_integer else 0.0)
    return scales


def distance(expected, found, scales):
    """The largest difference, in steps of the output; outputs made in float in steps of 1/256 of their span."""
    steps = [scale or float(np.ptp(one)) / 256 or 1.0 for scale, one in zip(scales, expected, strict=True)]
    return max(float(np.abs(a - b).max()) / s for a, b, s in zip(expected, found, steps, strict=True))
