"""Dense layers: every position along the other axes is multiplied by the same kernel."""

import keras
import numpy as np

from tfprune.graph.rules.axes import on_axis
from tfprune.graph.rules.elementwise import activate
from tfprune.graph.rules.registry import rule
from tfprune.graph.trace import Call


@rule(keras.layers.Dense, width="units")
def _dense(call: Call) -> np.ndarray | list[np.ndarray]:
    layer = call.layer
    if layer.kernel is not layer.variables[0]:  # LoRA and int8 kernels are computed, not stored
        return call.give_up(f"the kernel of {layer.name!r} is not a plain variable (LoRA or quantized)")
    call.folds_constants = True
    call.bind(layer.kernel, 0, call.along(call.inputs[0], -1), "consumer")
    made = call.produce(layer.kernel, -1)
    call.bind(layer.bias, 0, made, "affine", "shift")
    return activate(call, on_axis(made, -1, rank=len(call.input_shapes[0])), layer.activation)
