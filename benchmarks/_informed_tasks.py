"""The trained networks of `informed_choice.py`: three tasks, each with the data and the network that goes with it."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _trainings import residual
from dynamic_sparse import fashion_mnist

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from example_data import load_activity, load_keywords
from keyword_spotting import build_model as ds_cnn
from wearable_activity import build_model as conv1d

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Task:
    """One network and its data.

    Attributes:
        load: Returns inputs and labels to train with, and to test with.
        build: Makes the network from the shape of a sample and the number of classes; it returns logits.
        epochs: How long it is trained.
        learning_rate: The first one; it falls to zero along a cosine.
    """

    load: Callable[[], Arrays]
    build: Callable[[tuple[int, ...], int], keras.Model]
    epochs: int
    learning_rate: float

    def dense(self, path: Path, data: Arrays, seed: int) -> tuple[keras.Model, float]:
        """Return the trained network, from a file if it is there, and the CPU seconds of one epoch of its training."""
        seconds = path.with_suffix(".seconds")
        if not path.exists():
            keras.utils.set_random_seed(seed)
            model = self.build(data[0].shape[1:], int(data[1].max()) + 1)
            start = time.process_time()
            self._fit(model, data)
            taken = (time.process_time() - start) / self.epochs
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"partial-{path.name}")
            model.save(partial)
            seconds.write_text(f"{taken}\n")
            os.replace(partial, path)
        return keras.models.load_model(path, compile=False), float(seconds.read_text())

    def _fit(self, model: keras.Model, data: Arrays) -> None:
        steps = -(-len(data[0]) // BATCH)
        rate = keras.optimizers.schedules.CosineDecay(self.learning_rate, steps * self.epochs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer: Any = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
        model.compile(optimizer, loss, steps_per_execution=8, jit_compile=False)
        model.fit(data[0], data[1], epochs=self.epochs, batch_size=BATCH, verbose=0)


BATCH = 128


def _fashion() -> Arrays:
    x_train, y_train, x_test, y_test = fashion_mnist(10000)
    return x_train.reshape(-1, 28, 28, 1), y_train, x_test.reshape(-1, 28, 28, 1), y_test


def _recipe(load: Callable[[str], Any], name: str) -> Arrays:
    data = load(name)
    return data.x_train, data.y_train, data.x_test, data.y_test


TASKS: dict[str, Task] = {
    "fashion": Task(_fashion, lambda shape, classes: residual(8), 10, 0.1),
    "digits": Task(lambda: _recipe(load_keywords, "spoken_digits"), ds_cnn, 20, 0.1),
    "watch": Task(lambda: _recipe(load_activity, "smart_watch"), conv1d, 15, 0.05),
}
