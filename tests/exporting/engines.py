"""Programs for the runtimes of other environments: each runs `.tflite` files on stored inputs, and keeps the outputs.

Each is called with a folder of NAME.tflite and NAME.inputs.npz, whose arrays are called by the numbers of the inputs,
and writes NAME.outputs.npz, with an array for each output in the same way, or one `error`.
"""

import os
import sys
from pathlib import Path

import pytest
from runtimes import environment

_LOOP = """
import pathlib, sys
import numpy as np

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
    inputs = np.load(path.with_suffix(".inputs.npz"))
    try:
        outputs = run(str(path), [inputs[str(number)] for number in range(len(inputs))])
        found = {str(number): np.stack(rows) for number, rows in enumerate(outputs)}
    except Exception as error:
        found = {"error": np.array(f"{type(error).__name__}: {error}")}
    np.savez(path.with_suffix(".outputs.npz"), **found)
"""

_OLD = """
from tflite_runtime.interpreter import Interpreter, OpResolverType

def opened(path, resolver):
    interpreter = Interpreter(path, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    return interpreter

def run(path, inputs):
    try:
        interpreter = opened(path, OpResolverType.BUILTIN_REF)
    except (ValueError, RuntimeError):  # it has no plain kernel for the newest versions of some operators
        interpreter = opened(path, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    rows = []
    for sample in zip(*inputs):
        for details, value in zip(interpreter.get_input_details(), sample):
            interpreter.set_tensor(details["index"], value[None])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(each["index"])[0].copy() for each in interpreter.get_output_details()])
    return list(zip(*rows))
"""

_MICRO = """
from tflite_micro import runtime

def run(path, inputs):
    interpreter = runtime.Interpreter.from_file(path)
    count, rows = 0, []
    while count < 4:
        try:
            interpreter.get_output_details(count)
        except Exception:
            break
        count += 1
    for sample in zip(*inputs):
        for number, value in enumerate(sample):
            interpreter.set_input(value[None], number)
        interpreter.invoke()
        rows.append([interpreter.get_output(number)[0].copy() for number in range(count)])
    return list(zip(*rows))
"""

_OPENVINO = """
import openvino

core = openvino.Core()

def run(path, inputs):
    # Its products of int8 numbers overflow on processors without VNNI.
    compiled = core.compile_model(core.read_model(path), "CPU", {"LP_TRANSFORMS_MODE": "NO"})
    rows = []
    for sample in zip(*inputs):
        found = compiled([value[None] for value in sample])
        rows.append([found[each][0].copy() for each in compiled.outputs])
    return list(zip(*rows))
"""

ENGINES = {
    "tflite-runtime": (("tflite-runtime==2.14.0", "numpy<2"), _OLD),
    "tflite-micro": (("tflite-micro",), _MICRO),
    "openvino": (("openvino",), _OPENVINO),
}


def python_with(engine, folder):
    """The Python of an environment with an engine: `TFPRUNE_TFLITE_MICRO` and its like name one, or it is made."""
    named = os.environ.get(f"TFPRUNE_{engine.upper().replace('-', '_')}")
    if named:
        return Path(named)
    if engine == "tflite-runtime" and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has no wheel for this Python")
    return environment(folder, *ENGINES[engine][0])


def program(engine):
    """The program of an engine."""
    return ENGINES[engine][1] + _LOOP
