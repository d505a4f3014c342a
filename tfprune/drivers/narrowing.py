"""Training that gets cheaper as it prunes: channels that are dead leave the model between epochs."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfprune.callbacks.narrowing import Narrowable
from tfprune.common.checks import check_count
from tfprune.graph import analyse
from tfprune.rewriting.optimizer_state import check_carries
from tfprune.shrinking.narrowing import narrow, saved_macs, zero_labels
from tfprune.training.optimizers import updating_optimizers

_OURS = {"x", "y", "sample_weight", "epochs", "callbacks", "validation_split"}


def fit_narrowing(
    model: keras.Model,
    data: Any,
    epochs: int,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    every: int = 1,
    min_saving: float = 0.1,
    **arguments: Any,
) -> keras.Model:
    """Train a model whose dead channels leave it between epochs, so that training gets cheaper as it prunes.

    It is `model.fit` with a callback that makes channels zero for good. Where those channels make up enough of the
    model after an epoch, training goes on in a smaller model, as `shrink(model, carry_optimizer=True)` makes it:
    with the same weights, BatchNormalization statistics, count of steps and, in slices, the same momentum. It then
    trains as the larger one would with those channels held at zero, in less time. A channel that has left does not come
    back, and a layer such as Dropout draws other numbers for fewer channels.

    Of the callbacks of tfprune these go on in a smaller model, and count from the channels that the first model had:
    `GroupLasso` of whole channels, `NetworkSlimming`, and `FPGM` and `FilterPruning` in hard mode with a local ranking.
    All others are refused. Those of Keras see one training, which begins and ends once; what restores weights of
    another epoch is refused.

    Each smaller model is traced anew, which takes seconds: raise `min_saving` where an epoch takes no longer than that.

    Reference: Lym et al., PruneTrain: Fast Neural Network Training by Dynamic Sparse Model Reconfiguration, SC 2019,
    https://arxiv.org/abs/1901.09290

    Args:
        model: A built and compiled Keras model with a fixed input shape. It is trained in place until channels leave.
        data: Arrays `(x, y)` or `(x, y, sample_weight)`; or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches.
        epochs: The number of the last epoch.
        callbacks: Those that prune, and others.
        every: How many epochs lie between two looks at what is dead.
        min_saving: Which fraction of the multiply-accumulates has to be dead before the model gets smaller, in [0, 1).
            When training ends, all that is dead goes.
        **arguments: Others of `fit`, such as `batch_size` and `validation_data`.

    Returns:
        The model that was trained last, without dead channels; its `history` has the logs of all epochs.

    Raises:
        TypeError: If the data is of another kind.
        ValueError: Before training: if an argument is out of range, a callback cannot go on in a smaller model, or the
            optimizer's state cannot be cut to channels.

    Example:

    >>> import numpy as np
    >>> from tfprune.callbacks import FPGM
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> small = fit_narrowing(model, (x, x[:, :1]), epochs=3, callbacks=[FPGM(0.5)], verbose=0)
    >>> small.layers[0].units, len(small.history.history["loss"]), int(small.optimizer.iterations)
    (4, 3, 6)
    """
    check_count("epochs", epochs)
    if not 0 <= min_saving < 1:
        raise ValueError(f"min_saving must be a fraction of the multiply-accumulates, in [0, 1). Got: {min_saving!r}.")
    inputs = _inputs(data, arguments)
    epoch = arguments.pop("initial_epoch", 0)
    _check_model(model)
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)  # as Keras does
    _check_callbacks(callbacks)
    relay, history = _Relay(callbacks, check_count("every", every), min_saving), _WholeHistory()
    try:
        while True:
            model.fit(**inputs, **arguments, initial_epoch=epoch, epochs=epochs, callbacks=[relay, history])
            if relay.goes_on_at is None:
                return _narrowed(model, history)
            epoch = relay.goes_on_at
            model = relay.narrow(model)
    finally:
        relay.settle()


class _Relay(keras.callbacks.Callback):
    """Hands what `fit` tells on to the user's callbacks: of several fits they see one, which begins and ends once.

    Attributes:
        goes_on_at: The epoch with which training goes on in a smaller model; None if it is over.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], every: int, min_saving: float) -> None:
        super().__init__()
        self.goes_on_at: int | None = None
        self._callbacks = callbacks
        self._narrowables = [callback for callback in callbacks if isinstance(callback, Narrowable)]
        self._every, self._min_saving = every, min_saving
        self._begun = False

    def narrow(self, model: keras.Model) -> keras.Model:
        """Return the smaller model, and tell what stays."""
        analysis = analyse(model)
        small, variables = narrow(model, analysis, zero_labels(analysis))
        for callback in self._narrowables:
            callback.narrow({id(each.source): each.kept for each in variables})
        return small

    def settle(self) -> None:
        """Training has begun in the smaller model, or there is no more of it."""
        for callback in self._narrowables:
            callback.settle()

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        self._tell("set_params", params)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._tell("set_model", model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.goes_on_at = None
        for callback in self._callbacks:
            if not self._begun or isinstance(callback, Narrowable):
                callback.on_train_begin(logs)
        self._begun = True
        self.settle()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.goes_on_at is None:
            self._tell("on_train_end", logs)
        for callback in self._narrowables if self.goes_on_at is not None else ():
            callback.pause()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_epoch_end", epoch, logs)
        done, last = epoch + 1, self.params["epochs"]
        if not self.model.stop_training and done < last and done % self._every == 0 and self._is_worth_it():
            self.goes_on_at = done
            self.model.stop_training = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_test_begin", logs)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_test_end", logs)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell("on_test_batch_end", batch, logs)

    def _tell(self, what: str, *args: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, what)(*args)

    def _is_worth_it(self) -> bool:
        analysis = analyse(self.model)
        removed = zero_labels(analysis)
        return removed.size > 0 and saved_macs(self.model, analysis, removed) >= self._min_saving


class _WholeHistory(keras.callbacks.History):
    """The logs of several fits as those of one."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Go on where the fit before ended."""


def _narrowed(model: keras.Model, history: keras.callbacks.History) -> keras.Model:
    """The model without what is dead when training ends."""
    analysis = analyse(model)
    removed = zero_labels(analysis)
    if removed.size:
        model, _ = narrow(model, analysis, removed)
    history.set_model(model)
    model.history = history
    return model


def _inputs(data: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The data as `fit` takes it."""
    wrong = sorted(_OURS & set(arguments))
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: data, epochs and callbacks are arguments of fit_narrowing; split the "
            "data yourself, and pass validation_data."
        )
    if isinstance(data, tuple) and len(data) in (2, 3):
        return dict(zip(("x", "y", "sample_weight"), data, strict=False))
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        return {"x": data}
    raise TypeError(
        "data must be a tuple (x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset or a keras.utils.PyDataset. "
        f"Received: {type(data).__name__}."
    )


def _check_model(model: keras.Model) -> None:
    check_carries(model)
    if any(optimizer.use_ema for optimizer in updating_optimizers(model)):
        raise ValueError(
            "With use_ema, Keras overwrites the weights by their averages whenever a fit ends, and a fit ends where "
            "channels leave. Compile without use_ema, or train with model.fit and shrink afterwards."
        )
    analysis = analyse(model)
    saved_macs(model, analysis, zero_labels(analysis))  # raises where the input shape is open


def _check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    for callback in callbacks:
        name, reason = type(callback).__name__, ""
        if isinstance(callback, Narrowable):
            reason = callback.why_not_narrower()
        elif type(callback).__module__.startswith("tfprune."):
            reason = "it keeps masks or layers of the first model"
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            reason = "it would load the weights of a larger model"
        elif isinstance(callback, keras.callbacks.EarlyStopping) and callback.restore_best_weights:
            reason = "the best weights may be those of a larger model; leave restore_best_weights out"
        if reason:
            raise ValueError(
                f"{name} cannot go on when channels leave the model: {reason}. Otherwise train with model.fit, and "
                "shrink afterwards."
            )
