"""A program of its own: changes single bytes of `.tflite` files, and does with each what users do with a file.

    python damage.py FIRST COUNT FILE...

What comes out must be an answer, or a ValueError or RuntimeError with words of the library's own, and the process must
live to the end. It prints how many files were refused.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np

import tfprune
from tfprune.measure.file_costs import file_costs
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile
from tfprune_cli import main
from tfprune_cli.file_profile import profile_file


def inside_buffers(content):
    """Which bytes are constants: to change one of them leaves a file that is as good as before."""
    inside = np.zeros(len(content), bool)
    start = np.frombuffer(content, np.uint8).ctypes.data
    for buffer in TFLiteFile(content).model.buffers:
        if buffer.data is not None and len(buffer.data):
            place = np.asarray(buffer.data).ctypes.data - start
            inside[place : place + len(buffer.data)] = True
    return inside


def damaged(content, constants, number):
    """The file with one byte changed, in three of four cases outside of constants."""
    random = np.random.default_rng(number)
    places = np.flatnonzero(~constants) if number % 4 else np.arange(len(content))
    changed = bytearray(content)
    changed[random.choice(places)] ^= int(random.integers(1, 256))
    return bytes(changed)


def run(content):
    loaded = TFLiteModel(content)
    file_costs(loaded.file)
    zeros = {
        each.name: np.zeros((1, *each.shape[1:]), "float32" if each.scale else each.dtype) for each in loaded.inputs
    }
    try:
        loaded.predict(zeros)
    except IndexError:
        assert not loaded.inputs


def compare(path):
    """With labels for as many classes and outputs as the file still has."""
    loaded = TFLiteModel(path)
    x = {each.name: np.zeros((2, *each.shape[1:]), "float32") for each in loaded.inputs}
    y = {each.name: np.zeros((2, *each.shape[1:])) for each in loaded.outputs}
    tfprune.compare([path], (x, y), metric=lambda y, p: float(np.abs(y - p).max()), runs=1, progress=False)


def quietly(*arguments):
    """The command line: its exit code must be that of a good file, or of one that is refused in one line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, arguments)])
    assert code == 0 or (code == 2 and err.getvalue().startswith("error: ")), (code, err.getvalue())


def main_loop(first, count, paths):
    whole = [(content, inside_buffers(content)) for content in (Path(path).read_bytes() for path in paths)]
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.tflite"
        for number in range(first, first + count):
            content = damaged(*whole[number % len(whole)], number)
            path.write_bytes(content)
            print(number, end=" ", flush=True)  # tells which one it was, should it end the process
            uses = [lambda content=content: run(content), lambda: profile_file(path)]
            uses += [lambda: tfprune.benchmark(path, runs=1, warmup=0)] if number % 20 == 0 else []
            uses += (
                [lambda: quietly("profile", path), lambda: quietly("bench", path, "--runs", 1)]
                if number % 50 == 0
                else []
            )
            uses += [lambda: compare(path)] if number % 500 == 0 else []
            for use in uses:
                try:
                    use()
                except (ValueError, RuntimeError) as error:
                    if type(error) not in (ValueError, RuntimeError):  # a UnicodeDecodeError, a ZeroDivisionError ...
                        raise
                    refused += use is uses[0]
    print("refused", refused)


if __name__ == "__main__":
    main_loop(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
