"""How much of a budget pruning uses, and how long it takes to find the widths that do.

Claims, for ten networks of keras.applications (random weights, 224 px) that are to keep half of their operations: at
least 98% of the budget is used with widths in steps of 1, and 95% in steps of 8; it is never exceeded. With a checkout
of an earlier version beside it: `prune_channels(budget=)` takes at most a quarter of its time, in turns, each call in
a process of its own after a call on a small network.

    python benchmarks/budget.py
    python benchmarks/budget.py --before ../earlier    # a checkout that still made a model for each ratio it tried
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
from _shared import Claim, arguments, conclude, note, ratio_spread, spread

import tfprune
from tfprune.granularity import Channel

NETWORKS = (
    *("DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNet", "MobileNetV2"),
    *("MobileNetV3Small", "ResNet50", "ResNet50V2", "VGG16", "Xception"),
)
TIMED = ("MobileNetV2",)
LEFT = 0.5
LEAST = {1: 0.98, 8: 0.95}
"""For widths in steps of so many channels, the share of the budget that is to be used at least."""


def build(name: str) -> keras.Model:
    """Return a network with random weights."""
    return getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))


def used(model: keras.Model, left: float, round_to: int) -> dict[str, float]:
    """Return which share of a budget a pruned model uses, and the seconds that pruning took."""
    start = time.perf_counter()
    small = tfprune.prune_channels(model, budget=tfprune.Budget(macs=left), granularity=Channel(round_to=round_to))
    seconds = time.perf_counter() - start
    return {"share": tfprune.profile(small).macs / (left * tfprune.profile(model).macs), "seconds": seconds}


def timed_alone(name: str, checkout: Path) -> dict[str, float]:
    """Return what `used` finds in a process of its own, with the tfprune of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, __file__, "--alone", name]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(ran.stdout.splitlines()[-1])


def in_turns(before: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the times of the earlier version over those of this one, of pairs that ran one after the other."""
    found = {}
    for name in TIMED:
        pairs = []
        for _ in range(rounds):
            pairs.append((timed_alone(name, before), timed_alone(name, Path(__file__).parents[1])))
            note(f"{name}: {pairs[-1][0]['seconds']:.1f} s before, {pairs[-1][1]['seconds']:.1f} s now")
        old, new = ([pair[side]["seconds"] for pair in pairs] for side in (0, 1))
        found[name] = {
            "before": spread(old),
            "now": spread(new),
            "ratio": ratio_spread(old, new),
            "share_before": pairs[0][0]["share"],
        }
    return found


def main() -> int:
    """Read the command line and measure."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version, to compare times with")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of timings for each network (default: 3)")
    parser.add_argument("--alone", choices=TIMED, help="only time one network, print JSON, and stop")
    options = parser.parse_args()
    if options.alone:
        used(keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(96, 96, 3)), LEFT, 1)  # warms up
        print(json.dumps(used(build(options.alone), LEFT, 1)))
        return 0
    times = in_turns(options.before, options.rounds) if options.before else {}
    shares: dict[str, dict[int, float]] = {}
    for name in NETWORKS:
        model = build(name)
        shares[name] = {step: used(model, LEFT, step)["share"] for step in LEAST}
        note(f"{name}: {', '.join(f'{share:.5f} in steps of {step}' for step, share in shares[name].items())}")
    claims = [Claim("largest share of a budget that is used", max(max(each.values()) for each in shares.values()), 1.0)]
    for step, least in LEAST.items():
        lowest = min(each[step] for each in shares.values())
        claims.append(Claim(f"share that is used with widths in steps of {step}, lowest", lowest, least, at_least=True))
    for name, each in times.items():
        claims.append(Claim(f"{name}: time before over time now", each["ratio"].median, 4.0, at_least=True))
    settings = {"macs": LEFT, "input": 224, "rounds": options.rounds, "networks": NETWORKS}
    return conclude(options.out, claims, settings, {"shares": shares, "times": times})


if __name__ == "__main__":
    sys.exit(main())
