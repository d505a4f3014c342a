"""What the benchmarks share: measuring in turns, ratios with their spread, claims that can fail, and JSON."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("tfprune", "keras", "tensorflow", "numpy", "scipy", "ai-edge-litert", "mlxtend"),
    *("tf_keras", "tensorflow-model-optimization"),
)
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Spread:
    """A number that was measured many times: its median and quartiles."""

    median: float
    low_quartile: float
    high_quartile: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low_quartile:.3g} to {self.high_quartile:.3g})"


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Return the median and the quartiles of some measurements."""
    low, median, high = np.percentile(np.asarray(values, float), [25, 50, 75])
    return Spread(float(median), float(low), float(high), len(values))


def ratio_spread(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Return the spread of pairwise ratios: of two numbers taken in the same round, what slows the machine cancels."""
    if len(numerator) != len(denominator):
        raise ValueError(f"Expected pairs. Received: {len(numerator)} and {len(denominator)} measurements.")
    return spread(np.asarray(numerator, float) / np.asarray(denominator, float))


def in_a_process(script: str, name: str, options: argparse.Namespace, of_memory: bool) -> dict[str, float]:
    """Let a script measure one thing in a fresh process, in which nothing is compiled and nothing was freed before.

    Args:
        script: The script, which prints the numbers as JSON when it is told `--one`.
        name: What it is to measure.
        options: The options of the script, of which `weights` and `seed` are passed on.
        of_memory: Whether memory is measured. Without its setting the C library keeps what was freed,
            and growth would not be seen.

    Returns:
        The numbers by name.
    """
    command = [sys.executable, script, "--one", name, "--weights", str(options.weights), "--seed", str(options.seed)]
    environment = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": "65536"} if of_memory else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"The process that measures {name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warmup: int = 1,
) -> dict[str, list[float]]:
    """Call the functions in turns (A, B, A, B, ...), and return the seconds of each call after the warm-up rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(warmup + rounds):
        for name, function in functions.items():
            start = clock()
            function()
            taken = clock() - start
            if round_number >= warmup:
                seconds[name].append(taken)
    return seconds


@dataclasses.dataclass(frozen=True)
class Claim:
    """A promise with the number that was measured for it.

    Attributes:
        text: What is promised.
        value: What was measured.
        limit: The largest value that keeps the promise, or with `at_least` the smallest.
        at_least: Whether larger is better.
    """

    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the promise is kept; a NaN keeps none."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def arguments(doc: str | None, script: str) -> argparse.ArgumentParser:
    """Return a parser with the script's docstring as its help, and `--out`."""
    parser = argparse.ArgumentParser(
        prog=f"python benchmarks/{Path(script).name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = RESULTS / f"{Path(script).stem}.json"
    parser.add_argument("--out", type=Path, default=out, help=f"where the JSON goes (default: {out.name} in results/)")
    return parser


def conclude(out: Path, claims: Sequence[Claim], settings: Mapping[str, Any], measured: Any) -> int:
    """Write the JSON, print whether each claim holds, and return the exit status: 0 only if all of them do."""
    result = {
        "claims": [{**dataclasses.asdict(claim), "holds": claim.holds} for claim in claims],
        "settings": dict(settings),
        "measured": measured,
        "environment": environment(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(json.dumps(result, indent=2, default=_plain) + "\n")
    os.replace(partial, out)
    for claim in claims:
        sign = ">=" if claim.at_least else "<="
        word = "[green]holds[/green]" if claim.holds else "[bold red]FAILS[/bold red]"
        console.print(f"{word}: {claim.text}: {claim.value:.4g} {sign} {claim.limit:.4g}")
    return 0 if claims and all(claim.holds for claim in claims) else 1


def environment() -> dict[str, Any]:
    """Return the software versions and the number of cores that the numbers depend on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def note(text: str) -> None:
    """Print progress, at once also into a pipe."""
    console.print(text)
    sys.stdout.flush()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not go into JSON.")
