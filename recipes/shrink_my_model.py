"""Shrink a saved model: remove its least important channels and write a small .tflite, without any training data.

    python recipes/shrink_my_model.py model.keras --ratio 0.25
    python recipes/shrink_my_model.py model.keras --macs 0.5 --calibration data.npz   # int8

Channels are ranked by the norms of their weights. What goes costs accuracy: fine-tune pruned.keras if you have the
data, or remove little. With `--calibration`, an .npz with some hundred inputs (`x`, scaled as in training; or an array
for each input, by name), normalization is measured anew on the smaller net, the file is int8, and the table shows
how many of the inputs end up in the same class as before.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import example_tools as tools
import keras
import numpy as np
from example_data import read_npz

import tfprune
from tfprune.data import Reader, inputs_of, load_model
from tfprune.files import check_writable

MODES = ("none", "float16", "dynamic", "int8_weights", "int4_weights", "int8", "int16x8")
NEED_DATA = ("int8", "int16x8")


def load_calibration(path: Path, model: keras.Model, seed: int) -> Any:
    """Return up to 500 inputs for the model from an `.npz` file."""
    inputs, arrays = inputs_of(model), read_npz(path)
    arrays = {**arrays, "x": arrays["x_train"]} if "x_train" in arrays and "x" not in arrays else arrays
    given = Reader(inputs.picked(arrays, str(path)), inputs, argument=repr(str(path))).arrays
    assert given is not None
    rows = np.random.default_rng(seed).permutation(given.num_samples)[:500]
    chosen = inputs.samples(given.rows(rows).x)
    return chosen if len(chosen) > 1 else next(iter(chosen.values()))


def prune(model: keras.Model, options: argparse.Namespace, calibration: Any) -> keras.Model:
    """Return a smaller model: as it is, with a part of its channels, or within a budget of operations."""
    if options.macs is not None:
        small = tfprune.prune_channels(model, budget=tfprune.Budget(macs=options.macs))
    else:
        small = tfprune.prune_channels(model, options.ratio)
    normalized = any(layer.kind == "BatchNormalization" for layer in tfprune.profile(small).layers)
    if calibration is not None and normalized:
        tfprune.recalibrate(small, calibration)  # what is left sees other means and variances than before
    return small


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Load, prune, export and measure; write everything to `out`, and return the report."""
    step, out = tools.Steps(4), options.out
    step("Load the model, and export it as it is")
    model = load_model(options.model)
    calibration = options.calibration and load_calibration(options.calibration, model, options.seed)
    replace = {"calibration": calibration, "overwrite": options.overwrite}
    exports = [tfprune.export(model, out / "original_float.tflite", **replace)]

    step("Remove channels")
    small = prune(model, options, calibration)
    small.save(out / "pruned.keras")

    step("Export it to .tflite, checked against Keras")
    mode = None if options.quantize == "none" else options.quantize
    exports.append(tfprune.export(small, out / f"pruned_{mode or 'float'}.tflite", quantize=mode, **replace))

    step("Measure")
    files = tools.measure([model, small], exports, calibration)
    columns = [name for name in ("agreement", *tools.COLUMNS) if name in files[0]]
    report = tools.finish(options, files, step, columns)
    tools.console.print(advice(files[1].get("agreement")))
    return report


def advice(agreement: float | None) -> str:
    """Say what the smaller model is worth, as far as that is known."""
    if agreement is None:
        return "Nothing was trained or measured, so nobody knows its accuracy: measure it, and fine-tune pruned.keras."
    if agreement < 0.95:
        return (
            f"Only {agreement:.0%} of the inputs end up in the same class: fine-tune pruned.keras, or remove less. "
            "If the inputs are not scaled as in training, all of it is wrong."
        )
    return "Fine-tune pruned.keras if you have the data: what was removed comes back in part."


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(__doc__, out="shrink_my_model")
    parser.add_argument("model", type=Path, metavar="MODEL.keras", help="a saved Keras 3 model")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--ratio", type=float, default=0.1, help="fraction of the channels to remove, 0.0 to 0.95")
    size.add_argument("--macs", type=float, help="instead: fraction of the operations to keep, 0.05 to 0.95")
    parser.add_argument("--quantize", choices=MODES, help="default: int8 with --calibration, else dynamic")
    parser.add_argument("--calibration", type=Path, metavar="DATA.npz", help="inputs like those of training")
    parser.add_argument("--seed", type=int, default=0, help="chooses 500 of the inputs, if there are more")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    options = parser.parse_args(arguments)
    options.quantize = options.quantize or ("int8" if options.calibration else "dynamic")
    tools.check_numbers(parser, options, ratio=(0.0, 0.95), macs=(0.05, 0.95), seed=(0, 2**32 - 1))
    if options.quantize in NEED_DATA and not options.calibration:
        parser.error(f"--quantize {options.quantize} measures ranges on data: give --calibration DATA.npz.")
    try:
        for name in ("original_float.tflite", "pruned.keras", "report.json"):
            check_writable(options.out / name)
            if (options.out / name).exists() and not options.overwrite:
                parser.error(f"There is a file at '{options.out / name}' already. Give another --out, or --overwrite.")
        run(options)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
