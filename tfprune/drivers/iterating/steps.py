"""Of which phases `iterate` is made: training to the point of rewinding, the dense training, and the rounds."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.drivers.iterating.kept_choices import KeptChoices
from tfprune.drivers.iterating.optimizers import make_constant
from tfprune.drivers.iterating.policies import FineTune, Policy, Source
from tfprune.drivers.iterating.pruners import Choice, Pruner
from tfprune.drivers.iterating.states import State, joined, optimizer_variables
from tfprune.drivers.iterating.trainings import Trainings
from tfprune.drivers.phases import Phase
from tfprune.drivers.randomness import draw_seed, seed_everything
from tfprune.drivers.runs import Run
from tfprune.drivers.validation import Validation
from tfprune.graph import analyse
from tfprune.rewriting.cloning import rebuild_anew
from tfprune.rewriting.compiling import compile_like
from tfprune.shrinking.budget import measure

_DRAW = 4  # which of a round's random numbers, beside those of its phase
PRETRAIN, LAST = "pretrain", "ticket"
"""The names of the phases before the dense training, and behind the last round."""


def name_of(number: int) -> str:
    """Return the name of a round; 0 is the dense training."""
    return f"round-{number}"


@dataclass
class Steps:
    """The rounds of one call, and what has become of them.

    Attributes:
        run: Where they are done.
        dense: The copy of the user's model that is trained first.
        pruner: What is pruned.
        policy: What comes back.
        trainings: How each phase trains.
        validation: What is measured on; None if nothing is.
        seed: For everything random.
        initial: The state that training begins with.
        sized: Whether the sizes of models are to be known.
        saved: The state that comes back.
        choices: What each round has left, by name.
    """

    run: Run
    dense: keras.Model
    pruner: Pruner
    policy: Policy
    trainings: Trainings
    validation: Validation | None
    seed: int
    initial: State
    sized: bool = False
    saved: State = field(init=False)
    choices: dict[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.saved = self.initial
        self._form = self.pruner.whole()
        """What the model at hand has left."""
        self._as_compiled = keras.Sequential()
        compile_like(self.dense, self._as_compiled)
        self._constant = self.policy.learning_rate if isinstance(self.policy, FineTune) else None
        self._files = KeptChoices(self.run.path / "left", self._form)

    def train_dense(self) -> keras.Model:
        """Train to the point of rewinding, keep its state, and train to the end."""
        model = self.dense
        if self.policy.point:
            phase = Phase(PRETRAIN, lambda model: model, self.trainings.before_point(), seed=self.seed)
            model = self.run.do(phase, model)
            self.saved = State.of(model)
        name = name_of(0)
        self.choices[name] = self.pruner.whole()
        return self.run.do(
            Phase(name, self._saved_again, self.trainings.dense(), lambda model: self._facts(model, name), self.seed),
            model,
        )

    def choose(self, number: int, model: keras.Model) -> bool:
        """Choose what a round leaves, and return whether anything goes.

        Args:
            number: Which round it is, from 1.
            model: The trained model of the round before; of no importance where an earlier process has chosen.
        """
        name, before = name_of(number), self.choices[name_of(number - 1)]
        choice = self._files.find(name)
        if choice is None:
            choice = self.pruner.choose(model, before)
            self._files.keep(name, choice)
        self.choices[name] = choice
        return self.pruner.left(choice) != self.pruner.left(before)

    def prune(self, number: int, model: keras.Model) -> keras.Model:
        """Leave what was chosen, bring back what the policy says, and train.

        Args:
            number: Which round it is, from 1.
            model: The model of the round before.
        """
        name = name_of(number)
        choice = self.choices[name]
        phase = Phase(
            name,
            lambda model: self._began(model, choice, number),
            self.trainings.round(number, lambda model: self.pruner.held(model, choice)),
            lambda model: self._facts(model, name),
            self.seed,
            self.policy.settings(),
        )
        return self.run.do(phase, model)

    def bring_back(self, name: str, model: keras.Model) -> keras.Model:
        """Give the initial weights to what a round has left, and train them: behind the last round of strategy 2.

        Args:
            name: The round.
            model: Its model.
        """
        choice = self.choices[LAST] = self.choices[name]

        def prepare(model: keras.Model) -> keras.Model:
            back = self._cut(self.saved, choice)
            return self._given(model, choice, back, back, back)

        training = self.trainings.again(int(name.split("-")[1]), lambda model: self.pruner.held(model, choice))
        return self.run.do(Phase(LAST, prepare, training, lambda model: self._facts(model, LAST), self.seed), model)

    def load(self, name: str, model: keras.Model) -> keras.Model:
        """Return the model that a round before the last has trained.

        Args:
            name: The round.
            model: The model of the last.
        """
        if not self.pruner.in_place:
            model = self.pruner.apply(self.dense, self.pruner.whole(), self.choices[name])
        if name == name_of(0):
            compile_like(self._as_compiled, model)
        elif self._constant is not None:
            make_constant(model, self._constant, State.of(model))
        optimizer_variables(model)  # built, so that it is loaded too
        self.run.load(name, model)
        return model

    def ticket_weights(self) -> dict[str, np.ndarray]:
        """Return what a ticket begins with: the saved state, of the whole model."""
        return dict(self.saved.weights)

    def _saved_again(self, model: keras.Model) -> keras.Model:
        self.saved.give(model)
        return model

    def _began(self, model: keras.Model, choice: Choice, number: int) -> keras.Model:
        """A model with what the policy brings back."""
        trained, form = State.of(model), self._form
        model = self._formed(model, choice)
        if self._constant is not None:
            trained = make_constant(model, self._constant, trained)

        def source(name: Source) -> State:
            if name == "trained":  # weights as the smaller model has them, with constants folded into biases
                return State(State.of(model).weights, self.pruner.cut(trained, form, choice).optimizer)
            return self._cut(self.saved if name == "saved" else self._drawn(number), choice)

        place = source("trained" if self.policy.goes_on else "saved")
        return self._given(model, choice, source(self.policy.weights), source(self.policy.optimizer_source()), place)

    def _formed(self, model: keras.Model, choice: Choice) -> keras.Model:
        model = self.pruner.apply(model, self._form, choice)
        self._form = choice
        return model

    def _given(self, model: keras.Model, choice: Choice, weights: State, slots: State, place: State) -> keras.Model:
        joined(weights, slots, place).give(model)
        self.pruner.mark(model, choice)
        return model

    def _cut(self, state: State, choice: Choice) -> State:
        return self.pruner.cut(state, self.pruner.whole(), choice)

    def _drawn(self, number: int) -> State:
        """Weights that the initializers draw, and an optimizer that remembers nothing."""
        seed_everything(draw_seed(self.seed, number, _DRAW))
        analysis = analyse(self.dense)
        anew = rebuild_anew(self.dense, analysis, np.ones(analysis.trace.num_channels, int))
        return State(State.of(anew).weights, self.initial.optimizer)

    def _facts(self, model: keras.Model, name: str) -> dict[str, Any]:
        left = self.pruner.left(self.choices[name])
        facts = {"left": left.count, "total": left.total, "parameters": model.count_params()}
        sizes = measure(model) if self.sized else {}
        score = {} if self.validation is None else {"score": self.validation.score(model)}
        return {**facts, **sizes, **score}
