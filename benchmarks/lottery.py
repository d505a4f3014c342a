"""Lottery tickets: what the initial weights, rewinding and plain fine-tuning are worth, round by round.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    python benchmarks/lottery.py               # two hours on 2 cores; goes on where it was stopped, run by run

LeNet-300-100 on 10,000 images of Fashion-MNIST; accuracy on the 10,000 test images after the last epoch of each round,
chosen by nothing. Each round prunes a fifth of what is left of every layer by magnitude, to 2% of the weights, with
`tfprune.iterate`. SGD, momentum 0.9, at a small rate (0.01) and a large one (0.1), which falls to a tenth after half of
the epochs and to a hundredth after three quarters. Fine-tuning trains at the last rate, for as many epochs.

Two controls have as many weights left in every layer and round: the masks of the tickets with weights that are drawn
anew, and random masks with the initial weights.

Claims, after Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, and Liu et al., Rethinking the Value of
Network Pruning, ICLR 2019: at the small rate, tickets are ahead of their masks with new weights, and of random masks,
by the mean over the rounds that leave less than a tenth of the weights. At the large rate the initial weights are worth
less than at the small one.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, console, note
from dynamic_sparse import Images, Run, Settings, fashion_mnist, stored, write
from tables import lottery

import tfprune
from tfprune.callbacks import MagnitudePruning
from tfprune.criteria import Magnitude, RandomWeights

RATES = {"small": 0.01, "large": 0.1}
DEFAULTS = {"epochs": 4, "batch": 100, "train": 10000, "fraction": 0.2, "rounds": 18}
QUICK = {**DEFAULTS, "epochs": 2, "train": 1000, "fraction": 0.5, "rounds": 2}
TICKETS, REDRAWN, RANDOM = "initial weights", "weights drawn anew", "random masks"
REWOUND, RATE_REWOUND, TUNED = "rewound to epoch 1", "learning rate rewound", "fine-tuned"
METHODS = (TICKETS, REDRAWN, RANDOM, REWOUND, RATE_REWOUND, TUNED)
FEW = 0.1
"""Claims are about rounds that leave less than this."""


def build(rate: str, seed: int, settings: Settings) -> keras.Model:
    """Return a network with first weights that follow from the seed."""
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(units, "relu") for units in (300, 100)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)], name="LeNet-300-100")
    steps = settings["epochs"] * (settings["train"] // settings["batch"])
    falls = [RATES[rate], RATES[rate] / 10, RATES[rate] / 100]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([steps // 2, 3 * steps // 4], falls)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), loss, steps_per_execution=10, jit_compile=False)
    return model


def rounds_of(method: str, rate: str, seed: int, data: Images, settings: Settings) -> Any:
    """Return what the rounds of a method lead to."""
    policies: dict[str, Any] = {REWOUND: tfprune.Rewind(epoch=1), TUNED: tfprune.FineTune()}
    policies[RATE_REWOUND] = tfprune.RewindLearningRate(epoch=0)
    criterion = RandomWeights(seed) if method == RANDOM else Magnitude()
    return tfprune.iterate(
        build(rate, seed, settings),
        data[:2],
        train=settings["epochs"],
        stop=tfprune.Stop(rounds=settings["rounds"]),
        prune=tfprune.PruneWeights(settings["fraction"], criterion),
        rewind=policies.get(method, tfprune.InitialWeights()),
        options=tfprune.IterateOptions(
            validation=data[2:], fit={"batch_size": settings["batch"]}, seed=seed, progress=False
        ),
    )


def drawn_anew(
    tickets: Sequence[tfprune.Ticket], rate: str, seed: int, data: Images, settings: Settings
) -> list[float]:
    """Return the accuracy of what the masks of tickets leave of other weights."""
    found = []
    for number, ticket in enumerate(tickets):
        model = build(rate, 1000 * (seed + 1) + number, settings)
        ticket.apply(model, weights=False)
        held = {"epochs": settings["epochs"], "batch_size": settings["batch"], "callbacks": [MagnitudePruning(0.0)]}
        model.fit(*data[:2], **held, verbose=0)
        found.append(float((model.predict(data[2], batch_size=1000, verbose=0).argmax(axis=1) == data[3]).mean()))
    return found


def runs_of(rate: str, seed: int, data: Images, settings: Settings, wanted: Sequence[str]) -> Iterator[Run]:
    """Do what is wanted of a seed; masks are those of the tickets, which are found anew for their control."""
    tickets: list[tfprune.Ticket] = []
    for method in wanted:
        if method == REDRAWN:
            if not tickets:
                tickets = list(rounds_of(TICKETS, rate, seed, data, settings).tickets.values())
            densities = [ticket.density for ticket in tickets]
            accuracy: Sequence[Any] = drawn_anew(tickets, rate, seed, data, settings)
        else:
            found = rounds_of(method, rate, seed, data, settings)
            tickets = list(found.tickets.values()) if method == TICKETS else tickets
            densities = [row.density for row in found.report.rounds]
            accuracy = [row.score for row in found.report.rounds]
        yield {"method": method, "rate": rate, "seed": seed, "density": densities, "accuracy": accuracy}


def measure(runs: list[Run], rates: Sequence[str], seeds: Sequence[int], settings: Settings, store: Path) -> None:
    """Do the runs that are still missing, and store each one at once."""
    data: Images | None = None
    for seed, rate in itertools.product(seeds, rates):
        done = {run["method"] for run in runs if (run["rate"], run["seed"]) == (rate, seed)}
        wanted = [method for method in METHODS if method not in done]
        if not wanted:
            continue
        data = data or fashion_mnist(settings["train"])
        for run in runs_of(rate, seed, data, settings, wanted):
            runs.append(run)
            write(store, {"settings": settings, "runs": runs})
            last = f"{run['accuracy'][-1]:.2%} at {run['density'][-1]:.1%}"
            note(f"{rate} rate, seed {seed}: {run['method']}: {run['accuracy'][0]:.2%}, {last}")


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation of the accuracy, in percent, by rate, method and round."""
    cells: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for run in runs:
        for number, pair in enumerate(zip(run["density"], run["accuracy"], strict=True)):
            cells.setdefault((run["rate"], run["method"], number), []).append(pair)
    rows = []
    for (rate, method, number), pairs in cells.items():
        accuracy = [100 * each for _, each in pairs]
        deviation = float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None
        row = {"rate": rate, "method": method, "round": number, "density": pairs[0][0]}
        rows.append({**row, "mean": float(np.mean(accuracy)), "sd": deviation, "seeds": len(accuracy)})
    return rows


def check(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims, judged by means over seeds and rounds."""
    ahead = {}
    for rate, control in itertools.product(dict.fromkeys(row["rate"] for row in rows), (REDRAWN, RANDOM)):
        few = [row for row in rows if row["rate"] == rate and row["density"] < FEW]
        means = {name: np.mean([row["mean"] for row in few if row["method"] == name]) for name in (TICKETS, control)}
        ahead[rate, control] = float(means[TICKETS] - means[control])
    claims = []
    for control in (REDRAWN, RANDOM):
        text = f"small rate: points that tickets are ahead of {control} below {FEW:.0%} of the weights"
        claims.append(Claim(text, ahead["small", control], 0.0, at_least=True))
    if ("large", REDRAWN) in ahead:
        text = f"points that the lead over {REDRAWN} is larger at the small rate than at the large one"
        claims.append(Claim(text, ahead["small", REDRAWN] - ahead["large", REDRAWN], 0.0, at_least=True))
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON, print the tables, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds (default: 0 to 4)")
    parser.add_argument("--rates", nargs="+", default=list(RATES), choices=RATES, help="default: both")
    for name in ("epochs", "train", "rounds"):
        parser.add_argument(f"--{name}", type=int, help=f"default: {DEFAULTS[name]}")
    parser.add_argument(
        "--fraction", type=float, help=f"of what is left, in each round; default: {DEFAULTS['fraction']}"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one short epoch, to try the script")
    options = parser.parse_args(command_line)
    given = {name: value for name, value in vars(options).items() if name in DEFAULTS and value is not None}
    settings = {**(QUICK if options.quick else DEFAULTS), **given}
    store = options.out.with_suffix(".partial.json")
    runs = stored(options.out, store, settings)
    measure(runs, options.rates, options.seeds, settings, store)
    rows = summarize(runs)
    console.print(lottery(rows))
    status = conclude(options.out, check(rows), {**settings, "seeds": options.seeds}, {"accuracy": rows, "runs": runs})
    store.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
