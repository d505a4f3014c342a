"""The commands of docs/command-line.md and what they print.

python tests/cli/command_line_page.py

It trains the network that the page speaks of, runs all commands in an empty folder, and writes what they print into the
page. The test runs the same commands on the network without its training.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
from keras import layers
from networks import randomize

from tfprune_cli import main

PAGE = Path(__file__).parents[2] / "docs/command-line.md"
RUN = re.compile(r"```sh\n(.*?)```(?:\n+```text\n(.*?)```)?", re.S)
"""A block of commands, and the block of what they print, if one follows."""


def build():
    """A residual network for images of 32 pixels and 10 classes."""

    def conv(tensor, filters, name, strides=1):
        tensor = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=name)(tensor)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(tensor)

    inputs = keras.Input((32, 32, 3), name="image")
    trunk = layers.ReLU()(conv(inputs, 16, "stem", strides=2))
    branch = conv(layers.ReLU()(conv(trunk, 24, "first")), 16, "second")
    trunk = layers.ReLU()(layers.Add()([trunk, branch]))
    trunk = layers.ReLU()(conv(trunk, 32, "last", strides=2))
    outputs = layers.Dense(10, name="classes")(layers.GlobalAveragePooling2D()(trunk))
    return keras.Model(inputs, outputs, name="patterns")


def images(count, seed):
    """Ten patterns in heavy noise."""
    patterns = np.random.default_rng(0).normal(size=(10, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    random = np.random.default_rng(seed)
    y = random.integers(0, 10, count)
    return (patterns[y] + random.normal(scale=2.5, size=(count, 32, 32, 3))).astype("float32"), y


def make_files(folder, epochs):
    """Write what the page takes for granted: a model, the data of its training and of its test, and the log."""
    x, y = images(1000, seed=1)
    np.savez(folder / "train.npz", x=x, y=y)
    np.savez(folder / "test.npz", **dict(zip("xy", images(200, seed=2), strict=True)))
    keras.utils.set_random_seed(0)
    model = build() if epochs else randomize(build())
    log = folder / "log.csv"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    if epochs:
        model.fit(x, y, 50, epochs, verbose=0, callbacks=[keras.callbacks.CSVLogger(log)])
    else:
        log.write_text("epoch,accuracy,loss\n0,0.5,1.0\n")
    model.save(folder / "model.keras")


def run(commands):
    """Run a block of commands, and return the exit code of the last and what all of them print."""
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for line in commands.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "tfprune", line
            code = main(arguments)
    return code, printed.getvalue()


def write_outputs():
    """Run the page in an empty folder, and write what the commands print into it."""

    def rerun(found):
        code, printed = run(found[1])
        print(f"{code} {found[1].strip()}")
        return found[0] if found[2] is None else f"```sh\n{found[1]}```\n\n```text\n{printed.rstrip()}\n```"

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_files(Path(), epochs=8)
        PAGE.write_text(RUN.sub(rerun, PAGE.read_text()))


if __name__ == "__main__":
    write_outputs()
