"""Claim: soft filter pruning keeps the accuracy of hard pruning also in narrow networks, to 10 points at all widths.

    python benchmarks/soft_filter_pruning.py

Five convolutions with BatchNormalization of 8, 16, 32 and 64 filters each learn the digits of scikit-learn (8 px;
1,200 images to train, 597 to test), dense for 12 epochs. Half of the filters of every layer then go in 12 epochs with
the callback, from the trained network at a fifth of the learning rate, and from the first weights at the full one. The
accuracy is that of the network with the filters at zero, without any fine-tuning. `scope="layer"` is soft pruning as
in the paper, which leaves BatchNormalization alone. Mean of the seeds.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note
from sklearn.datasets import load_digits

from tfprune.callbacks import FilterPruning, SoftFilterPruning
from tfprune.schedules import Exponential

METHODS: dict[str, Callable[[], keras.callbacks.Callback]] = {
    "hard": lambda: FilterPruning(0.5, mode="hard"),
    "soft": lambda: SoftFilterPruning(0.5),
    "asymptotic": lambda: SoftFilterPruning(Exponential(0.5, unit="epochs", frequency=1, end=9)),
    "soft, scope layer": lambda: SoftFilterPruning(0.5, scope="layer"),
}
WIDTHS = (8, 16, 32, 64)
RATES = {"trained": 0.01, "scratch": 0.05}


def digits(seed: int) -> tuple[np.ndarray, ...]:
    """Return images and labels to train with, and to test with."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32"), labels[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def network(width: int, rate: float) -> keras.Model:
    """Return five convolutions, compiled."""
    layers: list[Any] = [keras.Input((8, 8, 1))]
    for index in range(5):
        strides = 2 if index in (2, 4) else 1
        layers.append(keras.layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False))
        layers += [keras.layers.BatchNormalization(momentum=0.9), keras.layers.ReLU()]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    return model


def accuracy_after(
    weights: list[np.ndarray], width: int, rate: float, epochs: int, seed: int, make: Callable[[], Any] | None
) -> tuple[float, list[np.ndarray]]:
    """Train from some weights; return the test accuracy and the weights."""
    x, y, test_x, test_y = digits(seed)
    keras.utils.set_random_seed(seed)
    model = network(width, rate)
    model.set_weights(weights)
    model.fit(x, y, epochs=epochs, batch_size=64, verbose=0, callbacks=[] if make is None else [make()])
    return float(model.evaluate(test_x, test_y, verbose=0)[1]), model.get_weights()


def measure(width: int, epochs: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Measure all methods at one width."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        first = network(width, 0.05).get_weights()
        dense, trained = accuracy_after(first, width, 0.05, epochs, seed, None)
        found.setdefault("dense", []).append(dense)
        for start, weights in (("trained", trained), ("scratch", first)):
            for name, make in METHODS.items():
                accuracy, _ = accuracy_after(weights, width, RATES[start], epochs, seed, make)
                found.setdefault(f"{name}, {start}", []).append(accuracy)
        keras.backend.clear_session()
    return {"width": width, **{name: float(np.mean(values)) for name, values in found.items()}}


def check(measured: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims, one for each start."""
    return [
        Claim(
            f"points of accuracy that soft pruning is behind hard pruning at most, {start}",
            100 * max(row[f"hard, {start}"] - row[f"soft, {start}"] for row in measured),
            10.0,
        )
        for start in RATES
    ]


def main(command_line: Sequence[str] | None = None, widths: Sequence[int] = WIDTHS) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each training (default: 12)")
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds (default: 2)")
    options = parser.parse_args(command_line)
    measured = []
    for width in widths:
        measured.append(measure(width, options.epochs, range(options.seeds)))
        note(", ".join(f"{name}: {value:.3g}" for name, value in measured[-1].items()))
    return conclude(options.out, check(measured), {"epochs": options.epochs, "seeds": options.seeds}, measured)


if __name__ == "__main__":
    sys.exit(main())
