"""The dtypes of what goes into a file and comes out of it."""

from typing import Any

from tfprune.exporting.inputs import Samples
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, type_name


def check_doors(file: TFLiteFile, io_dtype: str) -> None:
    """Raise if a file does not have the inputs and outputs that were asked for.

    Args:
        file: The file.
        io_dtype: The dtype of inputs and outputs that are real numbers.

    Raises:
        ValueError: If one of them has another dtype.
    """
    found = {name: kind for door in _doors(file) for name, kind in door.items()}
    others = [f"{name!r} is {kind}" for name, kind in found.items() if kind != io_dtype]
    if others:
        raise ValueError(
            f"io_dtype={io_dtype!r} was asked for, and in the file {', '.join(others)}: a layer beside it computes in "
            'float. Leave io_dtype out, pass io_dtype="float32", or do not leave that layer in float.'
        )


def door_dtypes(file: TFLiteFile) -> str:
    """Return the dtypes of inputs and outputs that are real numbers: one, or those in and those out.

    Args:
        file: The file.

    Returns:
        Such as `"int8"`, or `"float32 in, int8 out"`.
    """
    inputs, outputs = (" and ".join(sorted(set(door.values()))) for door in _doors(file))
    if inputs and outputs and inputs != outputs:
        return f"{inputs} in, {outputs} out"
    return inputs or outputs or "none"


def at_the_door(file: TFLiteFile, samples: Samples) -> Samples:
    """Return samples as a file reads them, rounded to the levels of its integer inputs.

    Args:
        file: The file.
        samples: Real numbers by input name.

    Returns:
        Arrays of the same shapes.
    """
    loaded = {details.name: details for details in TFLiteModel(file).inputs}
    return {name: loaded[name].dequantize(loaded[name].quantize(array)) for name, array in samples.items()}


def _doors(file: TFLiteFile) -> tuple[dict[str, str], dict[str, str]]:
    """The dtypes of inputs and of outputs that stand for real numbers, by name."""
    (signature,) = file.model.signatureDefs
    tensors = file.model.subgraphs[signature.subgraphIndex].tensors
    inputs, outputs = (
        {
            each.name.decode(): type_name(tensors[each.tensorIndex])
            for each in door
            if _is_real(tensors[each.tensorIndex])
        }
        for door in (signature.inputs, signature.outputs)
    )
    return inputs, outputs


def _is_real(tensor: Any) -> bool:
    quantization = tensor.quantization
    return "float" in type_name(tensor) or (quantization is not None and quantization.scale is not None)
