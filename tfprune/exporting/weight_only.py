"""Weights as small integers, and everything else in float, by the optional package `ai-edge-quantizer`."""

import importlib.util
import re
from collections.abc import Mapping
from types import MappingProxyType

_BITS = (4, 8)


def check_installed(quantize: str | None) -> None:
    """Raise unless the package that a mode needs is installed.

    Args:
        quantize: The mode, for the message.

    Raises:
        ImportError: If it is not.
    """
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ImportError(
            f"quantize={quantize!r} needs the package ai-edge-quantizer, which is not installed. "
            'Install it: pip install "tfprune[weight-only]".'
        )


def quantize_weights(content: bytes, num_bits: int, others: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """Return a float32 file with its kernels stored as integers, one scale per output channel.

    Args:
        content: The bytes of a float32 file.
        num_bits: 8 or 4.
        others: What the kernels of single operators are stored in instead, by the tensor that the operator makes: 8, 4,
            or 0 for float32.

    Returns:
        The bytes of the new file, whose kernels are dequantized when it is loaded or run.

    Raises:
        RuntimeError: If the package refuses the file.
    """
    from ai_edge_quantizer import quantizer, recipe

    (four,), (eight,) = recipe.weight_only_wi4_afp32(), recipe.weight_only_wi8_afp32()
    rules = dict(zip(_BITS, (four, eight), strict=True))
    rules[0] = {"operation": "*", "algorithm_key": "no_quantize"}
    # An operator is asked for by the names of what it makes, each with a semicolon behind it; the last rule holds.
    single = [{**rules[bits], "regex": f"^{re.escape(output)};$"} for output, bits in others.items()]
    try:
        chosen = [rules[num_bits], *single]
        result = quantizer.Quantizer(content, chosen).quantize(enable_progress_report=False)
    except Exception as error:  # the package raises whatever it meets
        raise RuntimeError(
            f"ai-edge-quantizer could not store the weights in {num_bits} bits: {error}. Use another quantize mode."
        ) from error
    return bytes(result.quantized_model)
