"""LeNet-300-100 on Fashion-MNIST at 90, 95 and 98% sparsity: a fixed random mask, MagnitudePruning, SET, RigL, GraNet.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install matplotlib scipy
    python benchmarks/dynamic_sparse.py        # about an hour on 2 cores; goes on where it was stopped

All 60,000 training images; accuracy on the 10,000 test images after the last epoch, chosen by nothing. Every method
gets the same 20 epochs of SGD, as GraNet's authors train on CIFAR-10 (learning rate 0.1, momentum 0.9, L2 5e-4) but for
a cosine, and by seed the same first weights and order of images: differences are paired by seed. The output layer (0.4%
of the weights) stays dense for all, as in the authors' networks for MNIST (RigL) and in their MLPs (SET); sparsity is
that of the two hidden kernels together. The fixed mask, SET and RigL split it by Erdos-Renyi and start from the same
mask; magnitude pruning takes the same share of each layer, as its paper does; GraNet ranks both layers together, from
half dense on. SET drops by magnitude and on RigL's schedule, as RigL's authors run it, so that the two differ in what
they grow by, and in the step that RigL gives to each update.

Claims, for each sparsity: SET, RigL and GraNet are better than the fixed mask (the 95% interval of the paired
difference is above zero); RigL is not worse than SET, nor GraNet than RigL (the interval reaches zero or more). At 90%
magnitude pruning costs at most 0.5 points.
"""

import gzip
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from _shared import Claim, arguments, conclude, console, note
from keras import layers
from scipy import stats
from tables import dynamic_sparse

from tfprune.callbacks import SET, GraNet, MagnitudePruning, RigL, SparseTraining, StaticSparsity
from tfprune.schedules import Cosine, Polynomial

PLOT = Path(__file__).parents[1] / "docs" / "dynamic-sparse.svg"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SPARSITIES = (0.9, 0.95, 0.98)
DEFAULTS = {
    "epochs": 20,
    "batch": 100,
    "learning_rate": 0.1,
    "l2": 5e-4,
    "frequency": 100,
    "steps_per_execution": 20,  # divides the frequency, so that masks change exactly when they should
    "xla": True,
    "train": 60000,
}
QUICK = {**DEFAULTS, "epochs": 2, "frequency": 2, "steps_per_execution": 2, "xla": False, "train": 1000}
Settings = dict[str, Any]
Run = dict[str, Any]
Images = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def static(sparsity: float, seed: int, settings: Settings) -> SparseTraining:
    return StaticSparsity(sparsity, exclude=is_output, seed=seed)


def magnitude(sparsity: float, seed: int, settings: Settings) -> SparseTraining:
    return MagnitudePruning(Polynomial(sparsity, frequency=settings["frequency"]), exclude=is_output)


def sparse_evolutionary(sparsity: float, seed: int, settings: Settings) -> SparseTraining:
    drop = Cosine(0.3, frequency=settings["frequency"], end=steps(settings) * 3 // 4)
    return SET(sparsity, criterion="magnitude", drop=drop, exclude=is_output, seed=seed)


def rigl(sparsity: float, seed: int, settings: Settings) -> SparseTraining:
    # RigL counts the steps before an update: this is the last step of an execution, after which the masks change.
    drop = Cosine(0.3, begin=settings["frequency"] - 1, frequency=settings["frequency"])
    return RigL(sparsity, drop=drop, exclude=is_output, seed=seed)


def granet(sparsity: float, seed: int, settings: Settings) -> SparseTraining:
    return GraNet(Polynomial(sparsity, initial=0.5, frequency=settings["frequency"]), exclude=is_output, seed=seed)


METHODS: dict[str, Callable[[float, int, Settings], SparseTraining]] = {
    "fixed random mask": static,
    "SET": sparse_evolutionary,
    "RigL": rigl,
    "GraNet": granet,
    "magnitude pruning": magnitude,
}


def is_output(layer: keras.layers.Layer) -> bool:
    return bool(layer.name == "output")


def steps(settings: Settings) -> int:
    return int(settings["epochs"] * (settings["train"] // settings["batch"]))


def fashion_mnist(train: int) -> Images:
    """Return images in [0, 1] as rows, and labels: from Debian's package, or as Keras downloads them."""
    if DEBIAN.is_dir():
        kinds = ("train-images-idx3", 16), ("train-labels-idx1", 8), ("t10k-images-idx3", 16), ("t10k-labels-idx1", 8)
        files = [gzip.decompress((DEBIAN / f"{name}-ubyte.gz").read_bytes())[header:] for name, header in kinds]
        x_train, y_train, x_test, y_test = (np.frombuffer(file, np.uint8) for file in files)
    else:
        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    train_rows, test_rows = (x.reshape(-1, 784).astype("float32") / 255 for x in (x_train, x_test))
    return train_rows[:train], y_train[:train].astype("int32"), test_rows, y_test.astype("int32")


def train(data: Images, method: str, sparsity: float, seed: int, settings: Settings) -> Run:
    """Train one network, and return its test accuracy and the sparsity that its kernels have."""
    start, start_cpu = time.perf_counter(), time.process_time()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    x_train, y_train = (tf.constant(array) for array in data[:2])
    batches = tf.data.Dataset.range(len(x_train)).shuffle(len(x_train), seed=seed).batch(settings["batch"])
    batches = batches.map(lambda rows: (tf.gather(x_train, rows), tf.gather(y_train, rows))).prefetch(20)
    decay = keras.regularizers.L2(settings["l2"] / 2)  # Keras leaves out the half of the usual definition
    hidden = [layers.Dense(units, "relu", kernel_regularizer=decay) for units in (300, 100)]
    model = keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10, kernel_regularizer=decay, name="output")])
    rate = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], steps(settings))
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=settings["steps_per_execution"],
        jit_compile=settings["xla"],
    )
    callbacks = [] if method == "dense" else [METHODS[method](sparsity, seed, settings)]
    history = model.fit(batches, epochs=settings["epochs"], verbose=0, callbacks=callbacks, shuffle=False).history
    logits = np.asarray(model(data[2]))
    return {
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "accuracy": float((logits.argmax(axis=1) == data[3]).mean()),
        "reached_sparsity": history.get("sparsity", [0.0])[-1],
        "live_by_layer": [int((layer.kernel.numpy() != 0).sum()) for layer in model.layers],
        "units_without_inputs": sum(int((~layer.kernel.numpy().any(axis=0)).sum()) for layer in hidden),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - start_cpu, 1),
    }


def measure(
    runs: list[Run], seeds: Sequence[int], settings: Settings, sparsities: Sequence[float], store: Path
) -> None:
    """Make the runs that are still missing, seed by seed, and store each one at once."""
    plan = [
        (method, sparsity, seed)
        for seed in seeds
        for method, sparsity in [("dense", 0.0), *itertools.product(METHODS, sparsities)]
    ]
    done = {(run["method"], run["sparsity"], run["seed"]) for run in runs}
    missing = [run for run in plan if run not in done]
    note(f"{len(plan) - len(missing)} of {len(plan)} runs are stored.")
    data = fashion_mnist(settings["train"]) if missing else None
    start = time.perf_counter()
    for count, (method, sparsity, seed) in enumerate(missing, 1):
        assert data is not None
        run = train(data, method, sparsity, seed, settings)
        runs.append(run)
        write(store, {"settings": settings, "runs": runs})
        left = (time.perf_counter() - start) / count * (len(missing) - count) / 60
        note(f"{count}/{len(missing)} {method} {sparsity:.0%} seed {seed}: {run['accuracy']:.2%}; {left:.0f} min left")


def write(path: Path, content: Any) -> None:
    """Write JSON such that there is the old file or the new one at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content) + "\n")
    os.replace(fresh, path)


def stored(out: Path, store: Path, settings: Settings) -> list[Run]:
    """Return the runs of an earlier call, finished or not; runs with other settings are an error."""
    path = store if store.exists() else out
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    earlier = {name: content["settings"].get(name) for name in settings}
    if earlier != settings:
        raise SystemExit(f"{path} was measured with {earlier}, not {settings}. Remove it, or give another --out.")
    runs: list[Run] = content["runs"] if path == store else content["measured"]["runs"]
    return runs


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Return mean and sample standard deviation by method and sparsity, and differences paired by seed, in points."""
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault((run["method"], run["sparsity"]), []).append(run)
    percent = {key: {run["seed"]: 100 * run["accuracy"] for run in group} for key, group in groups.items()}
    accuracy = []
    for (method, sparsity), group in groups.items():
        values = list(percent[method, sparsity].values())
        row = {"method": method, "sparsity": sparsity, "mean": np.mean(values), "sd": np.std(values, ddof=1)}
        idle = np.mean([run["units_without_inputs"] for run in group])
        accuracy.append({**row, "units_without_inputs": idle, "seeds": len(values)})
    pairs = [*itertools.combinations(METHODS, 2), *((method, "dense") for method in METHODS)]
    sparsities = sorted({run["sparsity"] for run in runs} - {0.0})
    differences = []
    for sparsity, (lower, upper) in itertools.product(sparsities, pairs):
        above, below = percent[upper, 0.0 if upper == "dense" else sparsity], percent[lower, sparsity]
        gaps = np.array([above[seed] - below[seed] for seed in sorted(below)])
        test = stats.ttest_1samp(gaps, 0.0)
        low, high = test.confidence_interval(0.95)
        wins = int((gaps > 0).sum())
        row = {"sparsity": sparsity, "of": upper, "over": lower, "mean": gaps.mean(), "low": low, "high": high}
        differences.append({**row, "p": test.pvalue, "wins": wins, "seeds": len(gaps)})
    return {"accuracy": accuracy, "differences": differences}


def check(summary: dict[str, Any]) -> list[Claim]:
    """Return the claims: what the papers found, judged by differences that are paired by seed."""
    rows = {(row["of"], row["over"], row["sparsity"]): row for row in summary["differences"]}
    dense = next(row["mean"] for row in summary["accuracy"] if row["method"] == "dense")
    # A small gap to a poor network would mean nothing.
    claims = [Claim("test accuracy of the dense network, mean, percent", dense, 89.0, at_least=True)]
    for (of, over, sparsity), row in rows.items():
        text = f"{sparsity:.0%}: {of} over {over}, points, 95% interval of the paired difference"
        if over == "fixed random mask" and of in ("SET", "RigL", "GraNet"):
            claims.append(Claim(f"{text}, lower end", row["low"], 0.0, at_least=True))
        elif (of, over) in {("RigL", "SET"), ("GraNet", "RigL")}:
            claims.append(Claim(f"{text}, upper end", row["high"], 0.0, at_least=True))
        elif (of, over, sparsity) == ("dense", "magnitude pruning", 0.9):
            claims.append(Claim("90%: accuracy lost by magnitude pruning, mean, points", row["mean"], 0.5))
    return claims


def draw(summary: dict[str, Any], path: Path) -> None:
    """Plot accuracy against sparsity: means, and one sample standard deviation up and down."""
    matplotlib.rcParams.update({"svg.hashsalt": "tfprune", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(6.4, 4))
    rows = {(row["method"], row["sparsity"]): row for row in summary["accuracy"]}
    sparsities = sorted({sparsity for _, sparsity in rows} - {0.0})
    places = np.arange(len(sparsities))
    dense = rows["dense", 0.0]
    axes.axhspan(dense["mean"] - dense["sd"], dense["mean"] + dense["sd"], color="0.9")
    axes.axhline(dense["mean"], color="0.4", linestyle="--", label="dense")
    for number, method in enumerate(METHODS):
        line = [rows[method, sparsity] for sparsity in sparsities]
        shift = 0.04 * (number - (len(METHODS) - 1) / 2)
        means, deviations = ([row[key] for row in line] for key in ("mean", "sd"))
        axes.errorbar(places + shift, means, deviations, marker="o", markersize=4, capsize=3, label=method)
    axes.set_xticks(places, [f"{sparsity:.0%}" for sparsity in sparsities])
    axes.set(xlabel="sparsity of the hidden layers", ylabel="test accuracy, %", title="LeNet-300-100 on Fashion-MNIST")
    axes.legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON and the plot, print the table, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="seeds (default: 0 1 2 3 4)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the figure goes (default: docs/)")
    parser.add_argument("--quick", action="store_true", help="two short epochs at one sparsity, to try the script")
    options = parser.parse_args(command_line)
    settings, sparsities = (QUICK, SPARSITIES[:1]) if options.quick else (DEFAULTS, SPARSITIES)
    store = options.out.with_suffix(".partial.json")
    runs = stored(options.out, store, settings)
    measure(runs, options.seeds, settings, sparsities, store)
    measured = {**summarize(runs), "runs": runs}
    draw(measured, options.plot)
    console.print(dynamic_sparse(measured))
    status = conclude(options.out, check(measured), {**settings, "seeds": options.seeds}, measured)
    store.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
