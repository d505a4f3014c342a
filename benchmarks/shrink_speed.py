"""How long analysis and a 50% shrink take, how much memory they need, and how they grow with depth.

Claims, on 2 cores, warm: ResNet50 at 224 px in at most 2.8 s and MobileNetV2 in at most 1.3 s; peak extra memory at
most twice the weights (for the ResNets; in one as small as MobileNetV2, the objects of its 156 layers weigh more than
its weights, and are reported); the time grows linearly with depth (ResNet50, 101, 152: seconds per layer within a
factor of 1.5).

    python benchmarks/shrink_speed.py
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note, spread, take_turns

import tfprune

NETWORKS = ("ResNet50", "ResNet101", "ResNet152", "MobileNetV2")
PAGE = 4096


def halve(model: keras.Model) -> keras.Model:
    """Analyse a model, and return it without half of the channels of every free group."""
    return tfprune.shrink(
        model, {group: np.arange(group.size - group.size // 2) for group in tfprune.channel_groups(model).free}
    )


def extra_memory(function: Callable[[], Any]) -> int:
    """Return by how many bytes the process grew at most while a function ran."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = function()
    finally:
        done.set()
        watcher.join()
    del kept
    return max(0, peak - before)


def memory_in_weights(name: str) -> float:
    """Return the extra memory of one shrink over the size of the weights, in a process that did not do it before."""
    # Warm: TensorFlow loads its kernels once, which is no cost of a shrink.
    halve(keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(96, 96, 3)))
    model = getattr(keras.applications, name)(weights=None)
    weights = sum(4 * int(np.prod(variable.shape)) for variable in model.weights)
    return extra_memory(lambda: halve(model)) / weights


def main() -> int:
    """Read the command line and measure."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--memory", choices=NETWORKS, help="only print the extra memory for one network, and stop")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which the networks take turns (default: 7)")
    options = parser.parse_args()
    if options.memory:
        print(memory_in_weights(options.memory))
        return 0
    memory = {}
    for name in NETWORKS:  # in processes of their own: freed memory that is used again would not count
        command = [sys.executable, __file__, "--memory", name]
        memory[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        note(f"{name}: extra memory {memory[name]:.2f} x the weights")
    models = {name: getattr(keras.applications, name)(weights=None) for name in NETWORKS}
    start = time.perf_counter()
    seconds = take_turns({name: partial(halve, model) for name, model in models.items()}, options.rounds)
    note(f"{options.rounds} rounds in {time.perf_counter() - start:.0f} s")
    times = {name: spread(values) for name, values in seconds.items()}
    per_layer = {name: times[name].median / len(models[name].layers) for name in NETWORKS[:3]}
    claims = [
        Claim("ResNet50, seconds", times["ResNet50"].median, 2.8),
        Claim("MobileNetV2, seconds", times["MobileNetV2"].median, 1.3),
        Claim("extra memory of a ResNet, in weights, largest", max(memory[name] for name in NETWORKS[:3]), 2.0),
        Claim("seconds per layer, slowest over fastest ResNet", max(per_layer.values()) / min(per_layer.values()), 1.5),
    ]
    for name, value in times.items():
        note(f"{name}: {value} s, {len(models[name].layers)} layers")
    measured = {"seconds": times, "extra_memory_per_weights": memory, "seconds_per_layer": per_layer}
    return conclude(options.out, claims, {"rounds": options.rounds, "input": 224}, measured)


if __name__ == "__main__":
    sys.exit(main())
