"""Small `.tflite` files made of random constants, without a converter."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.tflite.unpacking import pack as pack_model

TYPES = {
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "float16": schema.TensorType.FLOAT16,
    "float32": schema.TensorType.FLOAT32,
    "int64": schema.TensorType.INT64,
}


def constants_file(arrays):
    """A file of a graph without operators that holds these arrays as constants."""
    graph, model = schema.SubGraphT(), schema.ModelT()
    empty = schema.BufferT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [], [graph], [empty]
    for number, array in enumerate(arrays):
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        tensor.name, tensor.shape, tensor.buffer = f"constant_{number}".encode(), list(array.shape), number + 1
        tensor.type = TYPES[array.dtype.name]
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    return pack_model(model)


def random_constants(random):
    """Arrays of all kinds: few values, mostly zeros, noise, nothing."""
    arrays = []
    for _ in range(random.integers(1, 5)):
        dtype = list(TYPES)[random.integers(len(TYPES))]
        size = int(random.choice([0, 1, 15, 16, 100, 700, 5000], p=[0.1, 0.1, 0.15, 0.15, 0.2, 0.2, 0.1]))
        values = random.normal(0, 20, size)
        kind = random.integers(4)
        if kind == 0 and size:
            values = values[random.integers(0, min(size, random.integers(1, 20)), size)]
        elif kind == 1:
            values = np.where(random.uniform(size=size) < 0.95, 0.0, values)
        elif kind == 2:
            values = np.full(size, random.integers(-3, 3))
        arrays.append(np.clip(values, -127, 127).astype(dtype))
    return arrays
