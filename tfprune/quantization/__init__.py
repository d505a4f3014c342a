"""Quantization-aware training: models that compute, in float, what their int8 file will."""

from tfprune.quantization.aware import input_ranges, is_quantize_aware, quantize_aware
from tfprune.quantization.lowering import computes_coarsely, left_in_float, lowered, output_layers, strip

__all__ = [
    "computes_coarsely",
    "input_ranges",
    "is_quantize_aware",
    "left_in_float",
    "lowered",
    "output_layers",
    "quantize_aware",
    "strip",
]
