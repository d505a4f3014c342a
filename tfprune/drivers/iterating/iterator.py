"""`iterate`: rounds of pruning and training, and what comes back between them."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfprune.data.fingerprints import model_fingerprint
from tfprune.drivers.data import Data
from tfprune.drivers.display import Display
from tfprune.drivers.iterating.asked import check_rules, check_types, prepared_data, pruner_for
from tfprune.drivers.iterating.iterate_options import IterateOptions
from tfprune.drivers.iterating.iteration_report import Iteration, IterationReport, RoundReport
from tfprune.drivers.iterating.policies import InitialWeights, Policy
from tfprune.drivers.iterating.pruners import Pruner
from tfprune.drivers.iterating.rounds import TrainFunction
from tfprune.drivers.iterating.states import State
from tfprune.drivers.iterating.steps import LAST, PRETRAIN, Steps, name_of
from tfprune.drivers.iterating.stop import Stop
from tfprune.drivers.iterating.ticket import Ticket
from tfprune.drivers.iterating.trainings import Trainings
from tfprune.drivers.iterating.what import PruneChannels, PruneWeights
from tfprune.drivers.runs import Run
from tfprune.drivers.validation import Validation
from tfprune.graph import analyse
from tfprune.rewriting.cloning import duplicate

HOW_TO_RESTART = "pass options=tfprune.IterateOptions(restart=True)"
"""What messages tell a user of `iterate`."""


def iterate(
    model: keras.Model,
    data: Any,
    *,
    train: int | TrainFunction,
    stop: Stop,
    prune: PruneWeights | PruneChannels = PruneWeights(),  # noqa: B008 (pure)
    rewind: Policy = InitialWeights(),  # noqa: B008 (pure)
    options: IterateOptions | None = None,
) -> Iteration:
    """Train a model, and then again and again prune it and train what is left: iterative pruning, lottery tickets.

    What comes back before each training is said by `rewind`: nothing, the initial weights, those of an early step, the
    schedule of the learning rate alone, or weights that are drawn anew. Weights that are pruned stay zero in every step
    of training; channels are removed. The model itself is not changed. Random seeds are set.

    With `options=IterateOptions(path=...)` what is done is kept in a folder: where a call is cut off, the same call
    goes on after the last epoch, and ends with the same weights. It holds the models of the last two rounds, of the
    dense training and of the point of rewinding, and what each round has left.

    Reference: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635; Renda et
    al., Comparing Rewinding and Fine-tuning in Neural Network Pruning, ICLR 2020, https://arxiv.org/abs/2003.02389

    Args:
        model: A compiled Keras model, as it is before its training: the weights that it has now are the initial ones.
        data: What to train on: arrays `(x, y)` or `(x, y, sample_weight)`, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches with a known length. None if `train` is a function that has its own.
        train: How many epochs the dense training has; or a function `train(model, round)` that trains a model in place,
            told by a `Round` from where to where.
        stop: When rounds end.
        prune: What is pruned, and how much in each round.
        rewind: `InitialWeights()`, `InitialWeightsAtEnd()`, `Rewind(epoch=)`, `RewindLearningRate(epoch=)`,
            `FineTune()` or `Reinitialize()`.
        options: Folder, validation, metric, arguments of `fit`, callbacks and more; None for the defaults.

    Returns:
        The model, the ticket, and a report with a row for each round.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If the model is not compiled, nothing can be pruned, the rules contradict each other, the point of
            rewinding is never reached, or the folder belongs to a call with another model, data or arguments.
        RuntimeError: If the loss becomes NaN, or another call works in the folder.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> def train(model, round):
    ...     pass  # a loop of one's own
    >>> found = iterate(model, None, train=train, stop=Stop(rounds=2), options=IterateOptions(progress=False))
    >>> [each.left for each in found.report.rounds]
    [48, 39, 32]
    """
    check_types(stop, prune, rewind, options)
    options = options or IterateOptions()
    prepared = prepared_data(model, data, train, options)
    copy = duplicate(model, analyse(model))[0]
    training = None if prepared is None else prepared.training
    pruner = pruner_for(model, copy, prune, training, stop)
    trainings = Trainings(training, train, rewind, pruner, options)
    trainings.check(model)
    check_rules(stop, rewind, prepared)
    call = _Call(model, copy, prepared, stop, prune, rewind, options, pruner, trainings)
    with _folder(options) as folder:
        return call.run(folder)


@dataclass
class _Call:
    """One call of `iterate`, checked."""

    model: keras.Model
    copy: keras.Model
    data: Data | None
    stop: Stop
    prune: PruneWeights | PruneChannels
    rewind: Policy
    options: IterateOptions
    pruner: Pruner
    trainings: Trainings

    def run(self, folder: Path) -> Iteration:
        """Do what is left to do."""
        options, display = self.options, Display(self.options.progress)
        settings = self._settings()
        with Run(folder, settings, restart=options.restart, display=display, how_to_restart=HOW_TO_RESTART) as run:
            self._plan(run)
            validation = None if self.data is None else Validation(self.data.validation, options.metric)
            steps = Steps(
                run,
                self.copy,
                self.pruner,
                self.rewind,
                self.trainings,
                validation,
                options.seed,
                State.of(self.copy),
                sized=self.stop.budget is not None,
            )
            return self._rounds(run, steps)

    def _rounds(self, run: Run, steps: Steps) -> Iteration:
        model = steps.train_dense()
        self._tell(run)
        number, good, stopped = 0, 0, self._stopped(run, 0)
        while not stopped:
            if not steps.choose(number + 1, model):
                stopped = f"no more of what {name_of(number)} has left can go: the fraction of it is less than one"
                break
            number += 1
            model = steps.prune(number, model)
            self._tell(run)
            stopped = self._stopped(run, number)
            if self._accepts(run, number):
                good = number
                if number > 1:
                    run.forget(name_of(number - 1))
        if good < number:
            model = steps.load(name_of(good), model)
        name = name_of(good)
        if self.rewind.at_end and good:
            model, name = steps.bring_back(name, model), LAST
            self._tell(run)
        return self._result(run, steps, model, name, stopped)

    def _plan(self, run: Run) -> None:
        """Tell the display how much there is to do, as far as that is known."""
        rounds = self.stop.num_rounds(self.prune.of_each)
        if rounds is None:
            run.display.say("How many rounds there will be is not known, so neither is the time that is left.")
            return
        more = bool(self.rewind.point) + self.rewind.at_end
        again = self.trainings.epochs if self.rewind.at_end else 0
        epochs = self.trainings.epochs + rounds * self.trainings.epochs_of_round() + again
        run.display.plan(rounds + 1 + more, epochs)

    def _accepts(self, run: Run, number: int) -> bool:
        return self.stop.accepts(_facts(run, number), _facts(run, 0))

    def _stopped(self, run: Run, number: int) -> str:
        """Which rule ends the rounds after this one; empty if none does."""
        return self.stop.reached(number, _facts(run, number), _facts(run, 0))

    def _tell(self, run: Run) -> None:
        facts = run.records[-1].facts
        score = f", score {facts['score']:.4g}" if "score" in facts else ""
        run.display.say(f"    {facts['left']:,} of {facts['total']:,} {self.pruner.unit} left{score}")

    def _settings(self) -> dict[str, Any]:
        """What the result depends on."""
        compiled = self.model.compiled
        optimizer = _nameless(self.model.optimizer.get_config()) if compiled else None
        data = {"data": None} if self.data is None else self.data.fingerprint()
        metric = self.options.metric
        return {
            "run": "iterate",
            "model": model_fingerprint(self.model),
            "optimizer": [type(self.model.optimizer).__name__, optimizer] if compiled else None,
            **data,
            "train": self.trainings.train if isinstance(self.trainings.train, int) else "function",
            **self.stop.settings(),
            **self.prune.settings(),
            **self.pruner.settings(),
            "policy": self.rewind.settings(),
            "metric": getattr(metric, "name", None) or getattr(metric, "__name__", None),
            "seed": self.options.seed,
        }

    def _result(self, run: Run, steps: Steps, model: keras.Model, name: str, stopped: str) -> Iteration:
        rows = []
        records = [record for record in run.records if record.name != PRETRAIN]
        for record in records:
            facts, number = record.facts, 0 if record.name == LAST else int(record.name.split("-")[1])
            rows.append(
                RoundReport(
                    name=record.name,
                    left=facts["left"],
                    density=facts["left"] / facts["total"],
                    parameters=facts["parameters"],
                    epochs=len(record.history),
                    score=facts.get("score"),
                    accepted=self._accepts(run, number),
                )
            )
        metric = "" if self.data is None else getattr(self.options.metric, "name", None) or "accuracy"
        report = IterationReport(self.pruner.unit, metric, tuple(rows), name, stopped)
        if self.options.path is not None:
            report.save(run.path / "report.json")
            size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
            run.display.say(f"{run.path} holds {size / 1e6:.1f} MB")
        tickets = {row.name: self._ticket(steps, row) for row in rows}
        return Iteration(model, tickets[name], tickets, report)

    def _ticket(self, steps: Steps, row: RoundReport) -> Ticket:
        origin = {"round": row.name, "score": row.score, **self._settings()}
        return Ticket(self.pruner.masks(steps.choices[row.name]), steps.ticket_weights(), origin)


def _facts(run: Run, number: int) -> dict[str, Any]:
    """What is known of a round."""
    return next(record.facts for record in run.records if record.name == name_of(number))


def _nameless(config: Any) -> Any:
    """A config without names, which Keras counts up from call to call."""
    if isinstance(config, dict):
        return {name: _nameless(value) for name, value in config.items() if name != "name"}
    return config


@contextlib.contextmanager
def _folder(options: IterateOptions) -> Iterator[Path]:
    """The folder to work in."""
    if options.path is not None:
        yield Path(options.path)
        return
    with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
        yield Path(folder) / "rounds"
