"""What is refused before any work begins, and what arguments stand for."""

from typing import Any

import keras

from tfprune.drivers.data import Data, prepare
from tfprune.drivers.iterating.channels import ChannelPruner
from tfprune.drivers.iterating.iterate_options import IterateOptions
from tfprune.drivers.iterating.policies import Policy
from tfprune.drivers.iterating.pruners import Pruner
from tfprune.drivers.iterating.stop import Stop
from tfprune.drivers.iterating.weights import WeightPruner
from tfprune.drivers.iterating.what import PruneChannels, PruneWeights


def check_types(stop: Any, prune: Any, rewind: Any, options: Any) -> None:
    """Raise a TypeError if an argument of `iterate` has another type."""
    expected = {
        "stop": (stop, Stop, "Stop(rounds=10)"),
        "prune": (prune, PruneWeights | PruneChannels, "PruneWeights(0.2)"),
        "rewind": (rewind, Policy, "InitialWeights()"),
        "options": (options, IterateOptions | None, "IterateOptions(seed=1)"),
    }
    for name, (value, kind, example) in expected.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be one such as tfprune.{example}. Received: {value!r}.")


def prepared_data(model: keras.Model, data: Any, train: Any, options: IterateOptions) -> Data | None:
    """Return checked data; None if there is none.

    Args:
        model: The user's model.
        data: What to train on.
        train: Epochs, or a function.
        options: Say what is measured on, and the seed.

    Raises:
        TypeError: If data has another form.
        ValueError: If the model is not compiled for `fit`, or data does not fit it.
    """
    if data is None and callable(train):
        if options.validation is not None:
            return Data(None, prepare(model, options.validation, options.validation, 0).validation, split=False)
        return None
    if not model.compiled and not callable(train):
        raise ValueError(
            f"The model {model.name!r} is not compiled: loss and optimizer are taken from there. Compile it as for its "
            "training, model.compile(optimizer, loss), or pass a function as `train`."
        )
    return prepare(model, data, options.validation, options.seed)


def pruner_for(model: keras.Model, copy: keras.Model, prune: Any, data: Any, stop: Stop) -> Pruner:
    """Return what prunes, or raise if that does not fit the model or the rules that end rounds.

    Args:
        model: The user's model.
        copy: The copy that is trained.
        prune: What is pruned.
        data: What is trained on.
        stop: When rounds end.

    Raises:
        ValueError: If it does not fit.
    """
    if isinstance(prune, PruneWeights):
        if stop.budget is not None:
            raise ValueError("A budget is met by removing channels. Pass prune=PruneChannels(), or Stop(sparsity=...).")
        return WeightPruner(model, copy, prune, data)
    if stop.sparsity is not None:
        raise ValueError(
            "A sparsity is of single weights. With PruneChannels pass Stop(budget=...) or Stop(rounds=...)."
        )
    return ChannelPruner(model, copy, prune, data)


def check_rules(stop: Stop, rewind: Policy, data: Data | None) -> None:
    """Raise a ValueError if a rule needs what is not there, or says nothing about what is returned."""
    if stop.max_loss_factor is None:
        return
    if data is None:
        raise ValueError("max_loss_factor compares scores on validation data. Pass IterateOptions(validation=(x, y)).")
    if rewind.at_end:
        raise ValueError(
            "max_loss_factor says which round is the last good one, and InitialWeightsAtEnd trains another model "
            "behind it, of which it says nothing. Use InitialWeights(), or another rule."
        )
