"""The networks of `regularization.py`, and everything that is trained for one of its runs."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

Settings = dict[str, Any]
Images = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
CLASSES = 10


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        network: A key of `NETWORKS`.
        method: A key of `METHODS`.
        left: The fraction of the MACs that may stay.
        seed: Of the first weights and the order of the images.
        strength: Of the regularization; 0 for methods that have none.
    """

    network: str
    method: str
    left: float
    seed: int
    strength: float = 0.0


def vgg(width: int) -> keras.Model:
    """Return five convolutions with BatchNormalization, pooling between them, and a classifier."""
    inputs = x = keras.Input((28, 28, 1))
    for filters, pool in ((width // 2, 2), (width, 2), (2 * width, 1), (2 * width, 2), (3 * width, 1)):
        x = layers.MaxPooling2D(pool)(_conv(x, filters)) if pool > 1 else _conv(x, filters)
    return _classifier(inputs, x)


def residual(width: int, blocks: int = 3) -> keras.Model:
    """Return a small ResNet: three stages of residual blocks, with a projection where a stage begins."""
    inputs = keras.Input((28, 28, 1))
    x = _conv(inputs, width, strides=2)
    for stage in range(3):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            branch = _conv(_conv(x, width << stage, strides), width << stage, relu=False)
            x = x if strides == 1 else _conv(x, width << stage, strides, size=1, relu=False)
            x = layers.ReLU()(layers.Add()([x, branch]))
    return _classifier(inputs, x)


def _conv(x: Any, filters: int, strides: int = 1, size: int = 3, relu: bool = True) -> Any:
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x) if relu else x


def _classifier(inputs: Any, x: Any) -> keras.Model:
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


NETWORKS: dict[str, Callable[..., keras.Model]] = {"VGG": vgg, "residual": residual}


class Training:
    """Everything that is trained for one run: pieces of one schedule of epochs, learning rates and images.

    What several runs begin with is trained once and kept in a folder.

    Args:
        job: The run.
        settings: As in `regularization.py`.
        data: Images and labels to train on, and to evaluate with.
        folder: Where beginnings are kept.

    Attributes:
        third: How many epochs a third of the training has.
        pruned_accuracy: Accuracy of the small network before it was fine-tuned.
    """

    def __init__(self, job: Job, settings: Settings, data: Images, folder: Path) -> None:
        self.job = job
        self.third = settings["epochs"] // 3
        self.pruned_accuracy: float | None = None
        self._settings = settings
        self._folder = folder
        self._images, self._labels = (tf.constant(array) for array in data[:2])
        self._held_out = data[2:]

    def new(self) -> keras.Model:
        """Return the dense network with the first weights of the seed."""
        keras.utils.set_random_seed(self.job.seed)
        return NETWORKS[self.job.network](**self._settings["networks"][self.job.network])

    def dense(self, thirds: int) -> keras.Model:
        """Return the dense network after so many thirds of the training."""

        def make() -> keras.Model:
            return self.fit(self.dense(thirds - 1), (thirds - 1) * self.third, thirds * self.third)

        return self._kept(f"dense-{thirds}", self.new, make) if thirds else self.new()

    def with_callback(
        self,
        callback: keras.callbacks.Callback,
        after: int = 0,
        change: Callable[[keras.Model], keras.Model] = lambda model: model,
    ) -> keras.Model:
        """Return the network as it is when two thirds are over.

        Args:
            callback: Acts until then.
            after: How many thirds are over when it begins.
            change: Makes the model to train from the dense one.
        """
        # A strength is the same for all targets, so that they begin alike; a ratio is not.
        name = f"{self.job.method}-{self.job.strength or self.job.left:g}".replace(" ", "-")

        def make() -> keras.Model:
            return self.fit(change(self.dense(after)), after * self.third, 2 * self.third, callback)

        return self._kept(name, lambda: change(self.new()), make)

    def finish(self, small: keras.Model) -> keras.Model:
        """Fine-tune for the last third."""
        self.pruned_accuracy = self.accuracy(small)
        return self.fit(small, 2 * self.third, 3 * self.third)

    def fit(
        self,
        model: keras.Model,
        begin: int,
        end: int,
        callback: keras.callbacks.Callback | None = None,
        epochs: int | None = None,
    ) -> keras.Model:
        """Train from one epoch to another of a training of so many epochs, and return the model."""
        settings, size, seed = self._settings, len(self._images), self.job.seed
        steps = size // settings["batch"]
        total = steps * (epochs or settings["epochs"])
        rates = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], total)
        model.compile(
            keras.optimizers.SGD(rates, momentum=0.9, nesterov=True),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=settings["steps_per_execution"],
            jit_compile=False,  # for networks this small, compiling costs more than it brings
        )
        model.optimizer.build(model.trainable_variables)
        model.optimizer.iterations.assign(begin * steps)
        orders = [np.random.default_rng([seed, epoch]).permutation(size) for epoch in range(begin, end)]
        rows = np.concatenate([order[: steps * settings["batch"]].reshape(steps, -1) for order in orders])
        batches = tf.data.Dataset.from_tensor_slices(rows).map(
            lambda chosen: (tf.gather(self._images, chosen), tf.gather(self._labels, chosen))
        )
        callbacks = [] if callback is None else [callback]
        count = {"epochs": end - begin, "steps_per_epoch": steps}
        model.fit(batches.prefetch(4), **count, callbacks=callbacks, shuffle=False, verbose=0)
        return model

    def accuracy(self, model: keras.Model) -> float:
        """Return the accuracy on the images that are held out."""
        images, labels = self._held_out
        forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
        found = [forward(images[start : start + 1000]).numpy().argmax(1) for start in range(0, len(images), 1000)]
        return float((np.concatenate(found) == labels).mean())

    def _kept(self, name: str, build: Callable[[], keras.Model], make: Callable[[], keras.Model]) -> keras.Model:
        path = self._folder / f"{self.job.network}-{self.job.seed}-{name}.weights.h5"
        if path.exists():
            model = build()
            model.load_weights(path)
            return model
        model = make()
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as fresh:
            model.save_weights(Path(fresh) / path.name)
            os.replace(Path(fresh) / path.name, path)
        return model
