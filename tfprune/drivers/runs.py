"""A list of phases with a folder: what is done is kept, and a run that was cut off goes on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import keras

from tfprune.drivers.display import Display
from tfprune.drivers.folder import Folder, plain
from tfprune.drivers.phases import Desk, History, Phase
from tfprune.drivers.randomness import draw_seed, seed_everything

_PREPARE, _REPORT, _LEAVE = 1, 2, 3  # which of a phase's random numbers, beside those of its epochs


@dataclass(frozen=True)
class Record:
    """What is known of a finished phase.

    Attributes:
        name: Its name.
        facts: What it reported.
        history: The logs of each epoch of `fit`.
    """

    name: str
    facts: dict[str, Any]
    history: History


class Run:
    """A list of phases with a folder; it goes on where it was cut off, also by SIGKILL, and ends with the same weights.

    For its length no other run can work in the folder.

    Args:
        path: The folder; it may not exist yet.
        settings: What all phases depend on, as plain values: the kind of the run, and fingerprints of the model and the
            data (`tfprune.drivers.fingerprints`) among them. A folder with others is refused, and told which they are.
        restart: Whether to delete what is there, instead of going on from it.
        display: Told of phases and epochs; by default nothing is said.
        how_to_restart: How the user asks for a run from the start; stands in messages.

    Attributes:
        records: What is known of the phases that this process has finished or found finished.
        goes_on: Whether there was something to go on with.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> count = Phase("count", lambda model: model, facts=lambda model: {"weights": model.count_params()})
    >>> with Run(Path(tempfile.mkdtemp()) / "work", {"run": "example"}) as run:
    ...     for record, model in run.follow([count], model):
    ...         print(record)
    Record(name='count', facts={'weights': 3}, history=[])
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        *,
        restart: bool = False,
        display: Display | None = None,
        how_to_restart: str = "pass restart=True",
    ) -> None:
        self.path, self.display = Path(path), display or Display(False)
        self.records: list[Record] = []
        self.goes_on = False
        self._settings, self._restart = settings, restart
        self._folder = Folder(self.path, how_to_restart)

    def __enter__(self) -> "Run":
        self.goes_on = self._folder.open(self._settings, self._restart)
        self.display.say(f"{'Going on with' if self.goes_on else 'Working in'} {self.path}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.close()

    @property
    def notes(self) -> dict[str, Any]:
        """What the driver has noted beside the phases, in this process or an earlier one."""
        return self._folder.notes

    def note(self, **entries: Any) -> None:
        """Keep plain values that cost something to find."""
        self._folder.note(**entries)

    def load(self, name: str, model: keras.Model) -> None:
        """Give a model of the same form the weights and the optimizer that a finished phase has left.

        Args:
            name: A phase of this run that is not forgotten.
            model: The model.
        """
        self._folder.load(name, model)

    def forget(self, name: str) -> None:
        """Delete the model that a phase has left, which no later one needs; what is known of the phase stays.

        A process that goes on takes the phase as done, without its model: the next phase is given the model that it
        would have been given, and has to do without what this one trained.

        Args:
            name: A finished phase of this run.
        """
        self._folder.forget(name)

    def follow(self, phases: Iterable[Phase], model: keras.Model) -> Iterator[tuple[Record, keras.Model]]:
        """Do one phase after the other, and yield what is known of each and its model.

        Args:
            phases: A list; or a generator, which may look at `records` to decide what comes next, or that nothing does.
            model: The model that the first phase begins with.

        Yields:
            The record of a phase, and its model, which the next one begins with.

        Raises:
            ValueError: If two phases have one name, or an earlier process has done others or with other settings.
        """
        if isinstance(phases, Sequence):
            for position, phase in enumerate(phases, start=len(self.records)):
                self._check(position, phase, [earlier.name for earlier in phases[: position - len(self.records)]])
            if not self.display.num_phases:
                self.display.plan(len(phases), sum(phase.epochs for phase in phases))
        for phase in phases:
            model = self.do(phase, model)
            yield self.records[-1], model

    def do(self, phase: Phase, model: keras.Model) -> keras.Model:
        """Do one phase, or what an earlier process has left to do of it, and return its model.

        Args:
            phase: The phase.
            model: What it begins with.

        Returns:
            The model; `records` has one entry more.

        Raises:
            ValueError: If there was a phase of this name, or an earlier process did another, or with other settings.
        """
        self._check(len(self.records), phase, [])
        self._folder.begin(len(self.records), phase.name, plain(phase.all_settings()))
        found = self._folder.finished(phase.name)
        if found is not None and self._folder.forgotten(phase.name):
            self.display.skip(phase.announcement(), phase.epochs)
            self.records.append(Record(phase.name, *found))
            return model
        model = self._prepare(phase, model)
        if found is None:
            self.display.begin(phase.announcement(), phase.epochs)
            found = self._train(phase, model)
        else:
            self.display.skip(phase.announcement(), phase.epochs)
            self._folder.load(phase.name, model)
        seed_everything(draw_seed(phase.seed, 0, _LEAVE), model)  # the same behind a training and a loading
        self.records.append(Record(phase.name, *found))
        return model

    def _check(self, position: int, phase: Phase, earlier: Sequence[str]) -> None:
        if phase.name in [*earlier, *(record.name for record in self.records)]:
            raise ValueError(f"Two phases of a run are called {phase.name!r}. Names stand for files: use each once.")
        self._folder.check(position, phase.name, plain(phase.all_settings()))

    def _prepare(self, phase: Phase, model: keras.Model) -> keras.Model:
        """The model with which a phase begins; made anew where it goes on, as files hold weights but not code."""
        seed_everything(draw_seed(phase.seed, 0, _PREPARE))
        model = phase.prepare(model)
        if phase.training is not None:
            phase.training.start(model)
        _build_optimizer(model)
        return model

    def _train(self, phase: Phase, model: keras.Model) -> tuple[dict[str, Any], History]:
        history = self._folder.kept(phase.name, model)
        if history is None:
            history = []
            if phase.training is not None:
                backups, how = self._folder.backups(phase.name), self._folder.how_to_restart
                history = phase.training.train(model, Desk(phase.name, phase.seed, backups, self.display, how))
            _build_optimizer(model)
            self._folder.keep(phase.name, model, history)
        seed_everything(draw_seed(phase.seed, 0, _REPORT), model)
        facts = plain(phase.facts(model))
        self._folder.finish(phase.name, facts, history)
        return facts, history


def _build_optimizer(model: keras.Model) -> None:
    """Make the optimizer's slots: files hold them too, and Keras loads all or none."""
    if model.built and model.compiled:
        model.optimizer.build(model.trainable_variables)
