"""Whole fits that take turns in one process, and the network they train."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras


def resnet20() -> keras.Model:
    """Return the CIFAR ResNet-20: three stages of three blocks, 16, 32 and 64 filters."""
    return resnet20_of(keras)


def resnet20_of(library: Any, width: int = 16, shape: tuple[int, ...] = (32, 32, 3), momentum: float = 0.99) -> Any:
    """Return the CIFAR ResNet-20 made with Keras 3, or with another library that has its names, such as tf_keras.

    Args:
        library: `keras` or what has its names.
        width: Filters of the first stage.
        shape: Height, width and channels of the images.
        momentum: That of the moving averages of BatchNormalization.
    """
    layers = library.layers

    def conv(x: Any, filters: int, strides: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=momentum)(x)

    inputs = library.Input(shape)
    x = layers.ReLU()(conv(inputs, width))
    for filters in (width, 2 * width, 4 * width):
        for block in range(3):
            strides = 2 if filters > width and block == 0 else 1
            branch = conv(layers.ReLU()(conv(x, filters, strides)), filters)
            x = x if strides == 1 else conv(x, filters, strides, size=1)
            x = layers.ReLU()(layers.Add()([x, branch]))
    return library.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@dataclasses.dataclass
class Times:
    """What the pieces of a fit took.

    Attributes:
        cpu: Seconds of CPU time of each piece, of the whole process.
        wall: Seconds on the clock of each piece.
    """

    cpu: list[float] = dataclasses.field(default_factory=list)
    wall: list[float] = dataclasses.field(default_factory=list)


class Turn:
    """One fit's part: it works for some batches at a time, notes what they took, and hands over to the next fit.

    Args:
        mine: Opened when it is this fit's turn.
        following: Opened for the next fit.
        num_batches: How many batches a piece has.

    Attributes:
        times: What the pieces took so far.
    """

    def __init__(self, mine: threading.Semaphore, following: threading.Semaphore, num_batches: int) -> None:
        self.times = Times()
        self._mine = mine
        self._following = following
        self._num_batches = num_batches
        self._num_done = 0
        self._start = (0.0, 0.0)

    def callback(self, library: Any = keras) -> Any:
        """Return the callback of a library (Keras 3 or tf_keras) that takes the turns; it must be the last one."""
        return library.callbacks.LambdaCallback(
            on_train_begin=lambda logs: self._begin(), on_train_batch_end=lambda batch, logs: self._end_batch()
        )

    def _begin(self) -> None:
        self._start = (time.process_time(), time.perf_counter())

    def _end_batch(self) -> None:
        """After the last batch of a piece, stop the clocks, wait for the next turn, and start them again."""
        self._num_done += 1
        if self._num_done % self._num_batches == 0:
            cpu, wall = self._start
            self.times.cpu.append(time.process_time() - cpu)
            self.times.wall.append(time.perf_counter() - wall)
            self._following.release()
            self._mine.acquire()
            self._begin()


def in_turns(fits: Mapping[str, Callable[[Turn], None]], num_batches: int) -> dict[str, Times]:
    """Run several fits at once, of which only one works at a time, a few batches long: A, B, C, A, B, C, ...

    Each runs in a thread of its own that waits while the others work, so these are real, whole fits.

    Args:
        fits: By name, a function that makes a model and fits it with the callback of the turn that it is given.
            All of them must train for the same number of batches.
        num_batches: How many batches a piece has.

    Returns:
        By name, what the pieces of each fit took.
    """
    doors = [threading.Semaphore(0) for _ in fits]
    turns = [Turn(doors[i], doors[(i + 1) % len(fits)], num_batches) for i in range(len(fits))]
    errors: list[BaseException] = []

    def work(index: int, fit: Callable[[Turn], None]) -> None:
        doors[index].acquire()
        try:
            fit(turns[index])
        except BaseException as error:
            errors.append(error)
            for door in doors:
                door.release(10**6)  # nobody may wait for a fit that failed
        doors[(index + 1) % len(fits)].release()  # the others must not wait for a fit that is over

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(fits.values())]
    for thread in threads:
        thread.start()
    doors[0].release()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {name: turn.times for name, turn in zip(fits, turns, strict=True)}
