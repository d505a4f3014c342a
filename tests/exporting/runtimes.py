"""Files, inputs and a small script for trying exported files in the runtimes of other environments."""

import subprocess
import sys

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType

path, inputs, outputs = sys.argv[1:]
interpreter = Interpreter(path, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
interpreter.allocate_tensors()
image, scores = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
rows = []
for row in np.load(inputs):
    interpreter.set_tensor(image, row[None])
    interpreter.invoke()
    rows.append(interpreter.get_tensor(scores)[0].copy())
np.save(outputs, np.stack(rows))
"""


def environment(folder, *requirements):
    """Return the Python of a new virtual environment with some packages."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", *requirements], check=True, capture_output=True)
    return python


def by_reference(path, stored):
    """The outputs by the plainest kernels, which are those of the other engines: an array for each output."""
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    rows = []
    for value in stored:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value[None])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(each["index"])[0].copy() for each in interpreter.get_output_details()])
    return [np.stack(each) for each in zip(*rows, strict=True)]


def near_boundaries(model, x, num_inputs=20):
    """Return inputs between two samples of different classes, where the model can hardly decide."""
    classes = np.asarray(model(x)).argmax(1)
    one, other = x[classes == classes[0]], x[classes != classes[0]]
    count = min(len(one), len(other), num_inputs)
    low, high = one[:count].copy(), other[:count].copy()
    for _ in range(20):
        middle = (low + high) / 2
        same = (np.asarray(model(middle)).argmax(1) == classes[0])[:, None, None, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return low


def plain_net():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(4, name="scores", kernel_initializer=keras.initializers.RandomNormal(stddev=1.0)),
        ]
    )


def residual_net():
    layers = keras.layers
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)])
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Dense(32, activation="relu")(layers.GlobalAveragePooling2D()(x))
    outputs = layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=3.0), activation="softmax")(x)
    return keras.Model(inputs, outputs)
