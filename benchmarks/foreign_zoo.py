"""Networks of other packages than Keras: what can be pruned, whether that is exact, and int8 files in both ways.

Claims: whatever a package has made, nothing crashes and no number is wrong. With 30% of the channels of every free
group masked at random, `shrink` gives a model whose outputs equal the masked model's to 1e-4 relative, which saves and
loads where the original does; `export` writes an int8 file by calibration and one of the quantize-aware model, each
checked by `export` itself, or says why it will not.

    python benchmarks/foreign_zoo.py                    # all whose package is installed; finished networks are kept
    python benchmarks/foreign_zoo.py keras_hub --again  # those whose names begin so, once more
    python benchmarks/foreign_zoo.py --parts pruned     # without the int8 files, which take most of the time

The packages are not needed by tfprune, and are installed beside it:

    pip install kimm keras-hub k3im medicai keras_climate kapre keras-tcn ncps keras-lmu keras-rs keras-vision kyolo \
        segmodels_keras mingru-keras keras_efficient_kan tfswin tfvit
"""

import argparse
import importlib.util
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _foreign_networks import NETWORKS
from _shared import Claim, arguments, conclude, note
from quantize_zoo import calm, pictures
from zoo import mask_channels

import tfprune

PARTS = ("pruned", "calibrated", "aware")
RATIO, TOLERANCE, SAMPLES, SECONDS = 0.3, 1e-4, 8, 3600
FOLDER = str(Path(tfprune.__file__).parent)


def build(name: str) -> keras.Model:
    """Return a network with random weights that lets a signal through, so that a difference would show."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    generator = np.random.default_rng(0)
    for variable in model.weights:
        scale = any(word in variable.path.lower() for word in ("layer_scale", "layerscale", "gamma"))
        if scale or variable.name in ("gamma", "moving_variance", "scale"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    calm(model)
    model = fixed(model)
    if _has_statistics(model):
        tfprune.recalibrate(model, samples(model))
    return model


def fixed(model: keras.Model) -> keras.Model:
    """Return a model on sequences of 16 where lengths are open, as `export` asks for."""
    if all(size for tensor in model.inputs for size in tensor.shape[1:]):
        return model
    closed = [
        keras.Input([size or 16 for size in tensor.shape[1:]], dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    packed = keras.tree.pack_sequence_as(model.input, closed)
    return keras.models.clone_model(model, input_tensors=packed, clone_function=lambda layer: layer)


def _has_statistics(model: keras.Model) -> bool:
    return any(variable.name == "moving_mean" for variable in model.weights)


def samples(model: keras.Model, count: int = SAMPLES) -> Any:
    """Return inputs of the kinds that the model takes: pictures, token numbers, masks of ones, noise."""
    generator = np.random.default_rng(1)

    def one(tensor: keras.KerasTensor) -> np.ndarray:
        shape = (count, *tensor.shape[1:])
        if "int" in tensor.dtype or tensor.dtype == "bool":
            ones = "mask" in tensor.name or "segment" in tensor.name
            return (np.ones(shape) if ones else generator.integers(1, 40, shape)).astype(tensor.dtype)
        if len(shape) == 4 and shape[-1] == 3 and shape[1] == shape[2]:
            return pictures(count, shape[1]) / 255
        return generator.normal(0, 1, shape).astype(tensor.dtype)

    return keras.tree.map_structure(one, model.inputs[0] if len(model.inputs) == 1 else model.input)


def check(name: str, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Try what the claim says on one network, and return the row of the table."""
    model = build(name)
    inputs = samples(model)
    groups = tfprune.channel_groups(model)
    row: dict[str, Any] = {"network": name, "parameters": model.count_params(), **_free(groups)}
    with tempfile.TemporaryDirectory() as folder:
        attempts: dict[str, Callable[[], dict[str, Any]]] = {
            "aware": lambda: exported(_aware(model, inputs), Path(folder) / "aware.tflite", inputs),
            "calibrated": lambda: exported(model, Path(folder) / "calibrated.tflite", inputs),
            "pruned": lambda: pruned(model, folder, inputs),  # the last, as it masks the model
        }
        for part, attempt in attempts.items():
            if part in parts:
                idle = part == "pruned" and not groups.free
                row[part] = {"refused": "nothing is free"} if idle else _tried(attempt)
    return row


def _free(groups: tfprune.graph.ChannelGroups) -> dict[str, Any]:
    def channels(chosen: Iterable[tfprune.graph.ChannelGroup]) -> int:
        return sum(group.size for group in chosen)

    return {
        "groups": len(groups),
        "frozen": len(groups) - len(groups.free),
        "free_channels": channels(groups.free) / max(channels(groups), 1),
        "frozen_because": sorted({reason for group in groups for reason in group.frozen}),
        "unread": dict(groups.unread),
    }


def _tried(attempt: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What came out; or what the library said against it, such as that a file differs; or somebody else: a crash."""
    try:
        return attempt()
    except Exception as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        said = isinstance(error, ValueError | TypeError | RuntimeError) and raised_in.startswith(FOLDER)
        kind = "refused" if said else "crash"
        text = f"{type(error).__name__}: {error}" if kind == "crash" else str(error)
        if kind == "crash":
            traceback.print_exc()
        return {kind: text[:600]}


def pruned(model: keras.Model, folder: str, inputs: Any) -> dict[str, Any]:
    """Mask channels at random, take them out, and compare; save and load."""
    mask_channels(model, RATIO)
    if _has_statistics(model):
        tfprune.recalibrate(model, inputs)  # masked layers feed on other statistics; without this the signal dies
    small = tfprune.shrink(model)
    expected, found = _outputs(model, inputs), _outputs(small, inputs)
    largest = max(float(np.abs(output).max()) for output in expected)
    errors = [float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True)]
    saves = _saves(small, Path(folder) / "small.keras", inputs, found)
    # Whether that is the fault of the copy or the original cannot be saved either.
    original = saves if saves is True else _saves(model, Path(folder) / "masked.keras", inputs, expected)
    return {
        "parameters": small.count_params(),
        "relative_error": max(errors) / largest,
        "output_spread": max(float(output.std(axis=0).mean()) for output in expected) / largest,
        "saves": saves,
        "original_saves": original,
    }


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    return [np.asarray(output, "float32") for output in keras.tree.flatten(model(inputs, training=False))]


def _saves(model: keras.Model, path: Path, inputs: Any, expected: list[np.ndarray]) -> bool | str:
    """Whether a model can be saved and loaded and computes the same then; otherwise what stands in the way."""
    try:
        model.save(path)
        loaded = keras.models.load_model(path)
        found = _outputs(loaded, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(expected, found, strict=True))


def _aware(model: keras.Model, inputs: Any) -> keras.Model:
    aware = tfprune.quantize_aware(model, batch_normalization="freeze")
    aware(inputs, training=True)  # its ranges start with the first batch
    return aware


def exported(model: keras.Model, path: Path, inputs: Any) -> dict[str, Any]:
    """Export, which runs the file and compares it with the model, and return what the report says."""
    report = tfprune.export(model, path, quantize="int8", calibration=inputs)
    return {
        "file_bytes": report.file_bytes,
        "left_in_float": {each.name: each.reason for each in report.float_operators},
        "max_error_lsb": max((output.max_error_lsb or 0 for output in report.outputs), default=0),
        "relative_rms_error": max(output.relative_rms_error for output in report.outputs),
    }


def work(names: list[str], parts: Sequence[str]) -> None:
    """Check networks one after the other, and print each row as a line of JSON."""
    warnings.simplefilter("ignore")
    for name in names:
        start = time.process_time()
        print(json.dumps({"begins": name}), flush=True)
        try:
            row = check(name, parts)
        except Exception as error:
            traceback.print_exc()
            row = {"network": name, "crash": f"{type(error).__name__}: {error}"[:600]}
        print(json.dumps({**row, "seconds": time.process_time() - start}), flush=True)
        keras.backend.clear_session()


def rows_of(names: list[str], parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Check networks in a process of their own; one that takes it down or never ends is a row like any other."""
    left = list(names)
    while left:
        command = [sys.executable, __file__, "--worker", *left, "--parts", *parts]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        errors: list[str] = []
        threading.Thread(target=lambda w=worker, e=errors: e.extend(w.stderr), daemon=True).start()
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_forward, args=(worker.stdout, lines), daemon=True).start()
        while left and (row := _next_row(lines)) is not None:
            left.remove(row["network"])
            yield row
        if left:
            worker.kill()
            code = worker.wait()
            died = "".join(errors)[-300:] if code != -9 else f"no end after {SECONDS} s"
            yield {"network": left.pop(0), "crash": f"exit code {code}: {died}"}
        worker.wait()


def _forward(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def _next_row(lines: "queue.Queue[str | None]") -> dict[str, Any] | None:
    """The next finished row; None if the process has ended, or takes too long for one network."""
    while True:
        try:
            line = lines.get(timeout=SECONDS)
        except queue.Empty:
            return None
        row = json.loads(line) if line is not None else None
        if row is None or "begins" not in row:
            return row


def claims(rows: dict[str, dict[str, Any]]) -> list[Claim]:
    """What must hold over all networks."""
    parts = [row.get(part, {}) for row in rows.values() for part in PARTS]
    crashes = sum("crash" in row for row in rows.values()) + sum("crash" in part for part in parts)
    errors = [row["pruned"]["relative_error"] for row in rows.values() if "relative_error" in row.get("pruned", {})]
    return [
        Claim("networks checked", len(rows), 60, at_least=True),
        Claim("crashes", crashes, 0),
        Claim("largest relative error of a pruned network", max(errors, default=0.0), TOLERANCE),
    ]


def told(row: dict[str, Any]) -> str:
    """Return a finished row in a few words."""
    if "crash" in row:
        return f"CRASH {row['crash'][:200]}"
    words = [f"free {row['free_channels']:.0%}"]
    for part in [part for part in PARTS if part in row]:
        found = row[part]
        key = next((key for key in ("crash", "refused") if key in found), None)
        number = found.get("relative_error", found.get("relative_rms_error"))
        words.append(f"{part} {number:.2g}" if key is None else f"{part} {key.upper()}: {found[key][:160]}")
    return "; ".join(words).replace("\n", " ")


def main() -> int:
    """Read the command line and run."""
    parser: argparse.ArgumentParser = arguments(__doc__, __file__)
    parser.add_argument("names", nargs="*", default=[""], help="how the names of networks begin (default: all)")
    parser.add_argument("--again", action="store_true", help="check networks again that the JSON already holds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to try (default: all)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.names, options.parts)
        return 0
    done = json.loads(options.out.read_text())["measured"] if options.out.exists() else {}
    installed = {name for name in NETWORKS if importlib.util.find_spec(PACKAGES.get(head := name.split(".")[0], head))}
    wanted = [name for name in NETWORKS if name in installed and name.startswith(tuple(options.names))]
    settings = {"networks": list(NETWORKS), "ratio": RATIO}
    todo = [name for name in wanted if options.again or not {*options.parts} <= done.get(name, {}).keys()]
    for row in rows_of(todo, options.parts):
        before = {key: value for key, value in done.get(row["network"], {}).items() if key != "crash"}
        done[row["network"]] = {**before, **row}
        note(f"{row['network']}: {told(row)}")
        conclude(options.out, claims(done), settings, done)
    return conclude(options.out, claims(done), settings, done)


PACKAGES = {"segmodels": "segmodels_keras"}
"""Packages that are imported by another name than their networks have here."""

if __name__ == "__main__":
    sys.exit(main())
