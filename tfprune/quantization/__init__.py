"""Quantization-aware training: models that compute, in float, what their int8 file will."""

from tfprune.quantization.aware import input_ranges, is_quantize_aware, quantize_aware
from tfprune.quantization.barriers import without_barriers
from tfprune.quantization.finite import check_finite_weights
from tfprune.quantization.forward_folding import fold_normalizations
from tfprune.quantization.lowering import computes_coarsely, left_in_float, lowered, output_layers, strip
from tfprune.quantization.operator_forms import operator_form
from tfprune.quantization.stable_activations import activation_change

__all__ = [
    "activation_change",
    "check_finite_weights",
    "computes_coarsely",
    "fold_normalizations",
    "input_ranges",
    "is_quantize_aware",
    "left_in_float",
    "lowered",
    "operator_form",
    "output_layers",
    "quantize_aware",
    "strip",
    "without_barriers",
]
