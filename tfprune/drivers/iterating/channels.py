"""Channels: which go in a round, and the part of a state that a smaller model has."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.criteria import as_channel_criterion, l2_norm
from tfprune.drivers.iterating.pruners import Choice, Pruner
from tfprune.drivers.iterating.states import State, optimizer_variables
from tfprune.drivers.iterating.what import PruneChannels
from tfprune.graph import analyse
from tfprune.graph.chains import chains
from tfprune.graph.exclude import resolve_exclude
from tfprune.graph.groups import named
from tfprune.shrinking.choice import Amount
from tfprune.shrinking.judging import Judge
from tfprune.shrinking.removal import shrink
from tfprune.shrinking.rounds import Pruning, Rounds
from tfprune.statistics.gathering import known_statistics
from tfprune.training.masks import Masks, variables_by_path
from tfprune.training.step import slots_by_path

Positions = tuple[np.ndarray, ...]
"""Of a variable, what stays on each of its axes."""


class ChannelPruner(Pruner):
    """Removes channels: each round has a smaller model.

    Args:
        model: The user's model, whose layers `prune` may name.
        copy: The copy that is trained.
        prune: What is pruned.
        data: What is trained on, for a criterion that needs it.
    """

    unit = "channels"
    in_place = False

    def __init__(self, model: keras.Model, copy: keras.Model, prune: PruneChannels, data: Any) -> None:
        excluded = resolve_exclude(model, prune.exclude)
        names = {chain[-1].name for chain in chains(model) if excluded(chain[-1])}
        self._exclude = lambda layer: layer.name in names
        self._prune, self._criterion = prune, prune.criterion or l2_norm
        self._analysis = analyse(copy, self._exclude)
        self._groups = {name: group for name, group in named(self._analysis.groups).items() if not group.frozen}
        if not self._groups:
            raise ValueError(f"No channel of {model.name!r} can be removed.\n{self._analysis.groups}")
        self._variables = variables_by_path(copy)
        slots = slots_by_path(copy) if copy.compiled else {}
        owners = {id(slot): path for path, each in slots.items() for slot in each}
        self._owners = {
            name: owners[id(each)] for name, each in optimizer_variables(copy).items() if id(each) in owners
        }
        needs = as_channel_criterion(self._criterion, known_statistics()).needs
        self._data = data if needs else None
        self._judge(copy)  # refuses what does not fit, before work begins

    def settings(self) -> dict[str, Any]:
        """Return the size of each group that is pruned, and where it stands among all."""
        return {"groups": [[i, g.size] for i, g in enumerate(self._analysis.groups) if not g.frozen]}

    def whole(self) -> Choice:
        """Return the choice with which all is left."""
        return {name: np.ones(group.size, bool) for name, group in self._groups.items()}

    def choose(self, model: keras.Model, choice: Choice) -> Choice:
        """Take the channels of the smaller model that matter least."""
        analysis = analyse(model, self._exclude)
        _, found = Pruning(self._amount(), self._judge(model), self._prune.granularity, Rounds(1)).choose(
            analysis, model
        )
        names = {id(group): name for name, group in named(analysis.groups).items()}
        left = {name: np.zeros_like(mask) for name, mask in choice.items()}
        for group, stays in found.keep().items():
            name = names[id(group)]
            left[name][np.flatnonzero(choice[name])[stays]] = True
        return left

    def apply(self, model: keras.Model, before: Choice, choice: Choice) -> keras.Model:
        """Return a smaller model."""
        groups = named(analyse(model, self._exclude).groups)
        keep = {groups[name]: np.flatnonzero(choice[name][before[name]]) for name in self._groups}
        return shrink(model, keep)

    def cut(self, state: State, before: Choice, choice: Choice) -> State:
        """Return the slices that stay, of weights and of what the optimizer remembers of them."""
        old, new = self._positions(before), self._positions(choice)
        within = {path: tuple(map(np.searchsorted, old[path], new[path])) for path in new}
        weights = {path: _slice(value, within[path]) for path, value in state.weights.items()}
        optimizer = {
            name: _slice(value, within[self._owners[name]]) if name in self._owners else value
            for name, value in state.optimizer.items()
        }
        return State(weights, optimizer)

    def mark(self, model: keras.Model, choice: Choice) -> None:
        """Leave the model as it is: what is pruned is not there."""

    def held(self, model: keras.Model, choice: Choice) -> Masks:
        """Return nothing."""
        return {}

    def masks(self, choice: Choice) -> Masks:
        """Return what stays of each variable of the dense model that loses something."""
        found: Masks = {}
        for path, positions in self._positions(choice).items():
            shape = tuple(self._variables[path].shape)
            if tuple(map(len, positions)) != shape:
                found[path] = np.zeros(shape, bool)
                found[path][np.ix_(*positions)] = True
        return found

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return nothing."""
        return []

    def _amount(self) -> Amount:
        return Amount(self._prune.ratio, None)

    def _judge(self, model: keras.Model) -> Judge:
        return Judge.of(model, self._amount(), self._criterion, self._prune.ranking, self._data)

    def _positions(self, choice: Choice) -> Mapping[str, Positions]:
        """By the path of each variable of the dense model, what a choice has left on each axis."""
        analysis = self._analysis
        removed = np.concatenate([group.labels[~choice[name]] for name, group in self._groups.items()])
        alive = analysis.alive(removed)

        def of(variable: keras.Variable) -> Positions:
            bound = [analysis.trace.bindings.get((id(variable), axis)) for axis in range(len(variable.shape))]
            return tuple(
                np.arange(size) if each is None else np.flatnonzero(alive[each.channels])
                for size, each in zip(variable.shape, bound, strict=True)
            )

        return {path: of(variable) for path, variable in self._variables.items()}


def _slice(value: np.ndarray, positions: Positions) -> np.ndarray:
    return np.asarray(value[np.ix_(*positions)]) if value.ndim else value
