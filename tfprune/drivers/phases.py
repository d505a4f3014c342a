"""Parts of a longer work: each makes a model from the one before, may train it, and says what came out."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from tfprune.drivers.display import Display

History = list[dict[str, float]]
"""The logs of each epoch."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Desk:
    """Where a phase trains.

    Attributes:
        name: The phase.
        seed: For everything random in it.
        backups: A folder for backups, of this phase only; it may not exist yet.
        display: Told of every epoch.
        how_to_restart: How the user asks for a run from the start; stands in messages.
    """

    name: str
    seed: int
    backups: Path
    display: Display
    how_to_restart: str


class Training(ABC):
    """How a phase trains its model, in place."""

    epochs: int
    """How many at most; 0 where there is no such number."""

    @property
    def num_epochs(self) -> int:
        """How many of them this phase trains."""
        return self.epochs

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, as plain values."""

    @abstractmethod
    def start(self, model: keras.Model) -> None:
        """Make a prepared model ready, deterministically: also before the weights of a finished phase are loaded."""

    @abstractmethod
    def train(self, model: keras.Model, desk: Desk) -> History:
        """Train, going on from the backups of an earlier process if there are any."""

    def summary(self) -> str:
        """Return a few words for the line that says that the phase begins."""
        return ""


def no_facts(model: keras.Model) -> dict[str, Any]:
    """Return nothing about a model."""
    return {}


@dataclass(frozen=True)
class Phase:
    """A part of a longer work.

    What a function does cannot be compared with what it did in an earlier process: what `prepare` and `facts` depend on
    goes into `settings`.

    Attributes:
        name: What it is called, also in file names: letters, digits, `_` and `-`. One of its kind in a run.
        prepare: From the model of the phase before to the one with which this phase begins: a copy, or the same object
            where that may change. It is done again in every process, so it has to be deterministic, given its model;
            random seeds are set before.
        training: How the model is trained; None for not at all.
        facts: What is to be known of the model when it is trained: values that JSON has. Random seeds are set before.
        seed: For everything random.
        settings: What else the result depends on, as plain values.
        title: What is said when it begins; the name by default.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> Phase("count", lambda model: model, facts=lambda model: {"weights": model.count_params()}).facts(model)
    {'weights': 9}
    """

    name: str
    prepare: Callable[[keras.Model], keras.Model]
    training: Training | None = None
    facts: Callable[[keras.Model], dict[str, Any]] = no_facts
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"A phase's name is a part of file names: letters, digits, '_' and '-', such as 'round-1'. "
                f"Received: {self.name!r}."
            )

    @property
    def epochs(self) -> int:
        """How many epochs it trains, at most."""
        return self.training.num_epochs if self.training else 0

    def all_settings(self) -> dict[str, Any]:
        """Return what its result depends on, beside the model that it begins with."""
        training = self.training.settings() if self.training else {}
        return {**training, "seed": self.seed, **self.settings}

    def announcement(self) -> str:
        """Return what is said when it begins."""
        title, summary = self.title or self.name, self.training.summary() if self.training else ""
        return f"{title}, {summary}" if summary else title
