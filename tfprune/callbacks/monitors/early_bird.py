"""Early-Bird tickets: stops training as soon as it is settled which channels will be pruned."""

import warnings
from collections import deque
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count, check_fraction, check_not_negative
from tfprune.graph import ChannelGroup, analyse
from tfprune.graph.exclude import Exclude
from tfprune.parts.gamma_choice import (
    check_any_goes,
    choose_lowest,
    masks_without,
    mean_magnitudes,
    trained_switches,
)
from tfprune.training.masks import Masks


class EarlyBird(keras.callbacks.Callback):
    """Stop training as soon as it is settled which channels network slimming would prune: an Early-Bird ticket.

    After every epoch the floor(total * ratio) channels with the smallest |gamma| of the whole network are marked, as
    `NetworkSlimming` would prune them. Where the marks of `window` epochs in a row differ from the last ones on at most
    `threshold` of all channels, the ticket has emerged: `fit` stops, and `keep` and `masks` hand it over. No weight is
    changed. Pruned so, the model is trained to the end at a part of the cost.

    Gammas settle sooner under a small pull: put `NetworkSlimming(1e-4, None)` beside it, which pulls and never prunes.
    Low precision (`mixed_float16`) is enough for the search.

    What it remembers follows from the weights of the last epochs alone. A `fit` that goes on after `BackupAndRestore`
    or at an `initial_epoch` has those of one epoch, so that the ticket emerges up to `window - 2` epochs later.

    The epoch logs receive `mask_distance`, the largest distance of the epochs in the window from the last one: the
    fraction of channels that are marked in one of the two alone. It is 1 as long as the window is not full.

    Reference: You et al., Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks, ICLR 2020,
    https://arxiv.org/abs/1909.11957

    Args:
        ratio: The fraction of all channels that the ticket leaves out, in [0, 1); 0.3 to 0.7 in the paper.
        threshold: How far the masks of the window may differ, 0 or more; 0.1 in the paper.
        window: How many epochs in a row must agree, at least 2; 5 in the paper.
        min_channels: How many channels of every layer or group always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if no channel is switched by a gamma or none
            would go; during training, if a gamma is NaN.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv"), keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> model.compile(keras.optimizers.SGD(1e-3), "mse")
    >>> x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 3)), np.ones((8, 2))
    >>> early = EarlyBird(0.5, threshold=0.5, window=2)
    >>> history = model.fit(x, y, epochs=10, verbose=0, callbacks=[early])
    >>> early.emerged_after, tfprune.shrink(model, early.keep).get_layer("conv").filters
    (2, 4)
    """

    def __init__(
        self,
        ratio: float,
        *,
        threshold: float = 0.1,
        window: int = 5,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__()
        self.ratio = check_fraction("ratio", ratio)
        self.threshold = check_not_negative("threshold", threshold)
        self.window = check_count("window", window)
        if window < 2:
            raise ValueError(f"window must be at least 2: one mask has no other to differ from. Received: {window}.")
        self.min_channels = check_count("min_channels", min_channels)
        self.exclude = exclude
        self.emerged_after: int | None = None
        """How many epochs were done when the ticket emerged; None as long as there is none."""
        self.keep: dict[ChannelGroup, np.ndarray] = {}
        """For each channel group the indices of the channels that stay, for `tfprune.shrink(model, keep)`."""
        self.masks: Masks = {}
        """For each variable path a bool array, False where what is pruned makes or carries a channel that goes."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the gammas; errors come here, before time is spent."""
        self._switched = trained_switches(
            self.model, analyse(self.model, self.exclude), self.exclude, type(self).__name__
        )
        check_any_goes(self._switched, self.ratio)
        self._seen: deque[np.ndarray] = deque(maxlen=self.window)
        self._begun = False
        self.emerged_after, self.keep, self.masks = None, {}, {}
        self._distance = 1.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Where training goes on at a later epoch, look at what the one before it has left."""
        if not self._begun and epoch:
            self._look()
        self._begun = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the masks of the window, and stop if they agree."""
        gone = self._look()
        full = len(self._seen) == self.window
        self._distance = max(np.mean(each != self._seen[-1]) for each in self._seen) if full else 1.0
        if logs is not None:
            logs["mask_distance"] = float(self._distance)
        if full and self._distance <= self.threshold:
            self.emerged_after = epoch + 1
            self.masks = masks_without(self._switched, gone)
            groups = ((each.structure.group, channels) for each, channels in zip(self._switched, gone, strict=True))
            self.keep = {group: np.flatnonzero(~channels) for group, channels in groups if group is not None}
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warn if there is no ticket."""
        if self.emerged_after is None:
            warnings.warn(
                f"No ticket has emerged: the masks of {self.window} epochs in a row never differed by at most "
                f"{self.threshold:g} of the channels, in the end by {self._distance:g}. Train longer, pull harder at "
                "the gammas (NetworkSlimming), lower the learning rate, or raise the threshold.",
                stacklevel=2,
            )

    def _look(self) -> list[np.ndarray]:
        """Mark the channels that would go now, and remember them."""
        scores = [mean_magnitudes(each.magnitudes()) for each in self._switched]
        gone = choose_lowest(self._switched, scores, self.ratio, self.min_channels, stacklevel=3)
        self._seen.append(np.concatenate(gone))
        return gone
