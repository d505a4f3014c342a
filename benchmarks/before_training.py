"""Weights that go before the first step: SNIP, GraSP, SynFlow, random masks, and magnitude after training.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install matplotlib scipy
    python benchmarks/before_training.py       # about an hour on 2 cores; goes on where it was stopped

LeNet-300-100 and a small convolutional network on 10,000 images of Fashion-MNIST; accuracy on the 10,000 test images
after the last epoch, chosen by nothing. All kernels are pruned, also the last. Every network gets the same training
(SGD, learning rate 0.1 on a cosine, momentum 0.9, L2 5e-4), and by seed the same first weights and order of images.
SNIP and GraSP see 1,000 labelled training images, SynFlow none. Random masks are split by Erdos-Renyi (ERK) or by the
smart ratio. Magnitude ranks the weights of the trained dense network together, and trains once more: it sees twice the
training, and is what the others are measured by.

Each mask is also trained shuffled within its layers, and with weights drawn anew, which tells whether the method knows
more than how many weights each layer should keep.

Claims, after Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021: at
each sparsity magnitude after training is better than every method before training. Those lose at most one point of
accuracy when their masks are shuffled, and when weights are drawn anew. At 98% magnitude loses more by shuffling than
each of them.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _shared import Claim, arguments, conclude, console, note
from dynamic_sparse import fashion_mnist, stored, write
from keras import layers
from tables import before_training

import tfprune
from tfprune.callbacks import MagnitudePruning
from tfprune.criteria import SNIP, GraSP, Magnitude, RandomWeights, SynFlow
from tfprune.distributions import erdos_renyi_kernel, global_, smart_ratio
from tfprune.masking import record_masks, recorded_mask

SPARSITIES = (0.9, 0.95, 0.98)
DEFAULTS = {"epochs": 6, "batch": 100, "learning_rate": 0.1, "l2": 5e-4, "train": 10000, "scored": 1000}
QUICK = {**DEFAULTS, "epochs": 1, "train": 1000, "scored": 100}
SHUFFLED, REDRAWN = "masks shuffled", "weights drawn anew"
Settings = dict[str, Any]
Run = dict[str, Any]
Images = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def snip(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, SNIP(), data=data)


def grasp(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, GraSP(), data=data)


def synflow(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, SynFlow())


def random_erk(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, RandomWeights(seed), distribution=erdos_renyi_kernel)


def random_smart_ratio(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, RandomWeights(seed), distribution=smart_ratio)


def magnitude(model: keras.Model, sparsity: float, seed: int, data: Any) -> None:
    tfprune.prune_weights(model, sparsity, Magnitude(), distribution=global_)


INFORMED = ("SNIP", "GraSP", "SynFlow")
AFTER = "magnitude after training"
METHODS: dict[str, Callable[[keras.Model, float, int, Any], None]] = {
    "SNIP": snip,
    "GraSP": grasp,
    "SynFlow": synflow,
    "random, ERK": random_erk,
    "random, smart ratio": random_smart_ratio,
    AFTER: magnitude,
}


def lenet(decay: keras.Regularizer) -> keras.Model:
    hidden = [layers.Dense(units, "relu", kernel_regularizer=decay) for units in (300, 100)]
    head = layers.Dense(10, kernel_regularizer=decay)
    return keras.Sequential([keras.Input((784,)), *hidden, head], name="LeNet-300-100")


def convolutional(decay: keras.Regularizer) -> keras.Model:
    body: list[keras.layers.Layer] = []
    for filters in (16, 32, 64):
        body.append(layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, kernel_regularizer=decay))
        body += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, kernel_regularizer=decay)]
    inputs = [keras.Input((784,)), layers.Reshape((28, 28, 1))]
    return keras.Sequential([*inputs, *body, *head], name="three convolutions")


NETWORKS: dict[str, Callable[[keras.Regularizer], keras.Model]] = {
    "LeNet-300-100": lenet,
    "three convolutions": convolutional,
}


def build(network: str, seed: int, settings: Settings) -> keras.Model:
    """Return a network with first weights that follow from the seed."""
    keras.utils.set_random_seed(seed)
    model = NETWORKS[network](keras.regularizers.L2(settings["l2"] / 2))
    steps = settings["epochs"] * (settings["train"] // settings["batch"])
    rate = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], steps)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=10,
        jit_compile=False,
    )
    return model


def fit(model: keras.Model, data: Images, seed: int, settings: Settings) -> float:
    """Train what is not pruned, and return the test accuracy."""
    x, y = (tf.constant(array) for array in data[:2])
    batches = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=seed).batch(settings["batch"])
    batches = batches.map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows))).prefetch(20)
    model.fit(batches, epochs=settings["epochs"], verbose=0, callbacks=[MagnitudePruning(0.0)], shuffle=False)
    answers = np.concatenate([np.asarray(model(part, training=False)) for part in np.array_split(data[2], 10)])
    return float((answers.argmax(axis=1) == data[3]).mean())


def kernels_of(model: keras.Model) -> list[keras.Variable]:
    return [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]


def shuffled(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.permutation(mask.ravel()).reshape(mask.shape)


def variants(method: str) -> list[str]:
    """What is trained with a mask: as it is, shuffled, with other weights; of a random mask that would be the same."""
    return ["", SHUFFLED, REDRAWN] if method in (*INFORMED, AFTER) else [""]


def run_seed(
    network: str, seed: int, data: Images, settings: Settings, wanted: set[tuple[str, float, str]]
) -> Iterator[Run]:
    """Train the dense network, and what is wanted of the pruned ones."""
    model = build(network, seed, settings)
    first = model.get_weights()
    few = tuple(array[: settings["scored"]] for array in data[:2])
    dense = fit(model, data, seed, settings)
    trained = model.get_weights()
    yield {"method": "dense", "sparsity": 0.0, "variant": "", "accuracy": dense}
    for method, sparsity in itertools.product(METHODS, SPARSITIES):
        todo = [variant for variant in variants(method) if (method, sparsity, variant) in wanted]
        if not todo:
            continue
        model = build(network, seed, settings)
        model.set_weights(trained if method == AFTER else first)
        start = time.process_time()
        METHODS[method](model, sparsity, seed, few)
        seconds = time.process_time() - start
        masks = [recorded_mask(kernel) for kernel in kernels_of(model)]
        for variant in todo:
            random = np.random.default_rng([seed, len(variant)])
            model = build(network, seed + 1000 if variant == REDRAWN else seed, settings)
            if variant != REDRAWN:
                model.set_weights(trained if method == AFTER else first)
            held = [shuffled(mask, random) for mask in masks] if variant == SHUFFLED else masks
            record_masks(model, {k.path: mask for k, mask in zip(kernels_of(model), held, strict=True)})
            accuracy = fit(model, data, seed, settings)
            live = [int(np.count_nonzero(kernel.numpy())) for kernel in kernels_of(model)]
            row = {"method": method, "sparsity": sparsity, "variant": variant, "accuracy": accuracy}
            yield {**row, "live_by_layer": live, "seconds_to_choose": round(seconds, 1)}


def measure(runs: list[Run], networks: Sequence[str], seeds: Sequence[int], settings: Settings, store: Path) -> None:
    """Make the runs that are still missing, and store each one at once."""
    data: Images | None = None
    for seed, network in itertools.product(seeds, networks):
        plan = {(m, s, v) for m in METHODS for s in SPARSITIES for v in variants(m)} | {("dense", 0.0, "")}
        mine = [run for run in runs if (run["network"], run["seed"]) == (network, seed)]
        wanted = plan - {(run["method"], run["sparsity"], run["variant"]) for run in mine}
        if not wanted:
            continue
        data = data or fashion_mnist(settings["train"])
        for run in run_seed(network, seed, data, settings, wanted):
            if (run["method"], run["sparsity"], run["variant"]) in wanted:
                runs.append({"network": network, "seed": seed, **run})
                write(store, {"settings": settings, "runs": runs})
                what = f"{run['method']} {run['sparsity']:.0%} {run['variant']}"
                note(f"{network}, seed {seed}: {what} {run['accuracy']:.2%}")


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation of the accuracy, in percent, of each cell."""
    cells: dict[tuple[str, str, float, str], list[float]] = {}
    for run in runs:
        key = (run["network"], run["method"], run["sparsity"], run["variant"])
        cells.setdefault(key, []).append(100 * run["accuracy"])
    names = ("network", "method", "sparsity", "variant")
    return [
        {**dict(zip(names, key, strict=True)), "mean": np.mean(v), "sd": np.std(v, ddof=1), "seeds": len(v)}
        for key, v in cells.items()
    ]


def check(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims, judged by means over the seeds."""
    means = {(row["network"], row["method"], row["sparsity"], row["variant"]): row["mean"] for row in rows}
    claims = []
    for network, sparsity in itertools.product(dict.fromkeys(row["network"] for row in rows), SPARSITIES):
        where = f"{network}, {sparsity:.0%}"
        after = means[network, AFTER, sparsity, ""]
        best = max((means[network, method, sparsity, ""], method) for method in METHODS if method != AFTER)
        text = f"{where}: points of accuracy that {AFTER} is ahead of the best before training ({best[1]})"
        claims.append(Claim(text, after - best[0], 0.0, at_least=True))
        lost = {
            (method, variant): means[network, method, sparsity, ""] - means[network, method, sparsity, variant]
            for method in (*INFORMED, AFTER)
            for variant in (SHUFFLED, REDRAWN)
        }
        for method, variant in itertools.product(INFORMED, (SHUFFLED, REDRAWN)):
            claims.append(Claim(f"{where}: points that {method} loses with {variant}", lost[method, variant], 1.0))
        if sparsity == SPARSITIES[-1]:
            gap = lost[AFTER, SHUFFLED] - max(lost[method, SHUFFLED] for method in INFORMED)
            text = f"{where}: points that {AFTER} loses by shuffling, more than any of the others"
            claims.append(Claim(text, gap, 0.0, at_least=True))
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON, print the table, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, help="default: both")
    parser.add_argument("--quick", action="store_true", help="one short epoch, to try the script")
    options = parser.parse_args(command_line)
    settings = QUICK if options.quick else DEFAULTS
    store = options.out.with_suffix(".partial.json")
    runs = stored(options.out, store, settings)
    measure(runs, options.networks, options.seeds, settings, store)
    rows = summarize(runs)
    console.print(before_training(rows))
    status = conclude(options.out, check(rows), {**settings, "seeds": options.seeds}, {"accuracy": rows, "runs": runs})
    store.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
