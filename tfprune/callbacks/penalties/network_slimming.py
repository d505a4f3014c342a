"""Network slimming: learning efficient networks by the scaling factors of BatchNormalization."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from tfprune.callbacks.penalties.base import add_to
from tfprune.callbacks.penalties.gammas import GammaRegularization
from tfprune.callbacks.penalties.group_lasso import Update
from tfprune.common.checks import check_choice, check_fraction
from tfprune.graph.exclude import Exclude
from tfprune.parts.gamma_choice import check_any_goes, choose_lowest, mean_magnitudes
from tfprune.parts.structures import multiples
from tfprune.schedules import ScheduleLike
from tfprune.training.masks import HeldMasks, Masks
from tfprune.training.proximal import soft_threshold
from tfprune.training.step import Gradients, Weight

THRESHOLD = 1e-2
"""In the logs, a channel with a smaller gamma counts as below the threshold."""


class NetworkSlimming(GammaRegularization):
    """Pull the gammas of BatchNormalization to zero, then prune the channels with the smallest, in the whole network.

    In each step `strength * sign(gamma)` is part of what the optimizer sees. After `prune_at` epochs the
    floor(total * ratio) channels with the smallest |gamma| of all go, before validation: all that makes and carries
    them is zero and is held at zero in every step that follows. The other channels then recover, without any more pull.
    `tfprune.shrink` removes what is zero.

    Layers tied by a residual addition lose the same channels, by the mean of their |gamma|: it does not grow with the
    number of layers, so that all channels can be ranked together. Where a BatchNormalization stands in a branch of its
    own (pre-activation ResNets, DenseNets), its gammas select the inputs of that branch alone; see
    docs/network-slimming.md for what is then removed and what is only zero.

    Weights that `EarlyStopping(restore_best_weights=True)` restores may be those from before the pruning: put it before
    this callback, which then prunes them once more.

    The epoch logs receive `regularization_loss` (strength * sum of |gamma|), `channels_below_threshold` (|gamma| of at
    most 0.01) and `pruned_channels`.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    https://arxiv.org/abs/1708.06519

    Args:
        strength: How hard to pull: a number of at least 0, a function from the step to it, or a schedule.
            The paper: 1e-4 or 1e-5, with plain SGD.
        ratio: The fraction of all channels to prune, in [0, 1). None to pull alone, and prune nothing.
        prune_at: After how many epochs to prune; half of them if left out, as the paper trains and fine-tunes for as
            long. Several numbers prune in rounds, and the ratio grows evenly from one to the next.
        update: `"subgradient"` as in the paper, or `"proximal"`: gammas move by learning rate * strength after the
            optimizer's step and stop at zero. Use that with Adam, which rescales gradients.
        min_channels: How many channels of every layer or group always stay; others go instead.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if no channel is switched by a gamma, no channel
            would go or the training is shorter than `prune_at`; during training, if a gamma is NaN.

    Example:

    >>> import keras
    >>> import tfprune
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv"), keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 3)), np.ones((8, 2))
    >>> history = model.fit(x, y, epochs=4, verbose=0, callbacks=[NetworkSlimming(1e-3, ratio=0.5)])
    >>> history.history["pruned_channels"]
    [0, 4, 4, 4]
    >>> tfprune.shrink(model).get_layer("conv").filters
    4
    """

    def __init__(
        self,
        strength: ScheduleLike,
        ratio: float | None,
        *,
        prune_at: int | Sequence[int] | None = None,
        update: Update = "subgradient",
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__(strength, THRESHOLD, min_channels, exclude)
        self.ratio = None if ratio is None else check_fraction("ratio", ratio)
        self.prune_at = None if prune_at is None else _check_epochs(prune_at)
        check_choice("update", update, ("subgradient", "proximal"))
        self.update = update
        self._held: HeldMasks | None = None
        self._done = 0

    def why_not_narrower(self) -> str:
        """Return "": training can go on in smaller models."""
        return ""

    def pause(self) -> None:
        """Let the optimizer go, without the end of training."""
        super().pause()
        self._release()

    def combine(self, magnitudes: np.ma.MaskedArray) -> np.ndarray:
        """Return the mean of |gamma| over the layers that a channel passes through."""
        return mean_magnitudes(magnitudes)

    def penalty(self) -> float:
        """Return the sum of |gamma|."""
        return sum(float(each.magnitudes().sum()) for each in self.switched)

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Add the subgradient of the penalty."""
        if self.update == "proximal":
            return {}
        signs = self._inside(lambda variable: ops.sign(ops.convert_to_tensor(variable)))
        return add_to(gradients, [(gamma, ops.cast(strength, sign.dtype) * sign) for gamma, sign in signs])

    def pull_weights(self, weight: Weight, rate: Any, strength: Any) -> list[tuple[Any, Any]]:
        """Move gammas towards zero; the largest of each layer do not arrive there."""
        if self.update == "subgradient":
            return []
        largest = [
            (each, each.largest(each.squared_norms(weight), self.min_channels, "float32")) for each in self.structures
        ]
        stays = {gamma.path: kept for gamma, kept in multiples(largest, lambda variable: ops.ones(variable.shape))}
        moved = []
        for gamma, inside in self._inside(lambda variable: ops.ones(variable.shape)):
            value = weight(gamma)
            arrived = soft_threshold(value, ops.cast(rate * strength * inside, value.dtype))
            zero = ops.equal(arrived, 0)
            kept = zero & (stays[gamma.path] > 0)
            # Not -0.0, which would say that HeldMasks has pruned it.
            moved.append((gamma, ops.where(kept, value, ops.where(zero, ops.zeros_like(value), arrived))))
        return moved

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the gammas, and when to prune."""
        super().on_train_begin(logs)
        self._rounds = () if self.ratio is None else self._planned_rounds(self.ratio)
        self._gone = [np.zeros(each.structure.size, bool) for each in self.switched]
        self._done = self._done if self.num_left else 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start in the first epoch; after the last pruning nothing pulls any more."""
        super().on_epoch_begin(epoch, logs)
        if self._rounds and self._done == len(self._rounds):
            self._strength.stop()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune before the validation of an epoch, so that it measures the pruned model."""
        if self._clock.epoch is not None:
            self._prune_after(self._clock.epoch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prune if validation did not, and log what is pruned."""
        self._prune_after(epoch + 1)
        super().on_epoch_end(epoch, logs)
        self._log(logs, pruned_channels=self.num_left + sum(int(gone.sum()) for gone in self._gone))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave every pruned channel exactly zero; prune now where training stopped before its time."""
        if self._started and self._done < len(self._rounds):
            warnings.warn(
                f"Training stopped before the last pruning, which was to come after {self._rounds[-1]} epochs. The "
                "channels are pruned now, and have not recovered: fit again without this callback, or stop later.",
                stacklevel=2,
            )
            self._prune_after(self._rounds[-1])
        super().on_train_end(logs)
        self._release()

    def dead_masks(self) -> Masks:
        """Return masks of the channels that were pruned, whichever others have small gammas."""
        return self.masks_without(self._gone)

    def _planned_rounds(self, ratio: float) -> tuple[int, ...]:
        """After how many epochs to prune; a ValueError if that is never."""
        epochs = self.params.get("epochs", 1)
        rounds = self.prune_at or ((epochs + 1) // 2,)
        if rounds[-1] > epochs:
            raise ValueError(
                f"prune_at={rounds[-1]} is after the end of this fit, which has {epochs} epochs. Prune earlier, "
                "and leave epochs to recover."
            )
        check_any_goes(self.switched, ratio, self.num_left)
        return rounds

    def _start(self, epoch: int) -> None:
        super()._start(epoch)
        self._gone = [each.zero() for each in self.switched]
        if any(gone.any() for gone in self._gone):
            self._hold()
        self._prune_after(epoch)

    def _prune_after(self, epochs: int) -> None:
        """Make up for the rounds that are due after so many epochs."""
        due = sum(time <= epochs for time in self._rounds)
        if self.ratio is not None and due > self._done:
            self._done = due
            self._prune(self.ratio * due / len(self._rounds))

    def _prune(self, ratio: float) -> None:
        scores = [np.where(gone, -np.inf, s) for gone, s in zip(self._gone, self.scores(), strict=True)]
        self._gone = choose_lowest(self.switched, scores, ratio, self.min_channels, stacklevel=4, left=self.num_left)
        self._hold()

    def _hold(self) -> None:
        if self._held is not None:
            self._held.detach()
        self._held = HeldMasks(self.model, self.masks_without(self._gone), self.params)

    def _release(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    def _inside(self, value: Weight) -> list[tuple[Any, Any]]:
        """For each gamma that switches channels, a value at their positions and 0 elsewhere."""
        return multiples([(each, ops.ones((each.size,))) for each in self.structures], value)


def _check_epochs(prune_at: int | Sequence[int]) -> tuple[int, ...]:
    epochs = prune_at if isinstance(prune_at, (tuple, list)) else (prune_at,)
    whole = all(isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 1 for epoch in epochs)
    if not epochs or not whole or list(epochs) != sorted(set(epochs)):
        raise ValueError(
            "prune_at must be a whole number of epochs, at least 1, or several of them that go up, such as (10, 20). "
            f"Received: {prune_at!r}."
        )
    return tuple(epochs)
