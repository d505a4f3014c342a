"""Claims: what the quickstart promises, checked by running it as a user would, once per seed.

    python benchmarks/quickstart_claims.py

- it takes under 4 minutes, imports and all, on 2 CPU cores;
- int8 is on average at most 1.0 point of test accuracy below the dense float net;
- the pruned net has at most half of the dense net's MACs;
- the int8 file has at most a sixth of the dense float file's bytes;
- the pruned float file takes at most 0.7 of the dense float file's time, measured in turns in the same run.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _shared import Claim, arguments, conclude, note

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.py"


def run_recipe(seed: int) -> dict[str, Any]:
    """Run the recipe with its defaults in a process of its own, and return its report with the wall time."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, str(RECIPE), "--seed", str(seed), "--out", folder], check=True)
        seconds = time.perf_counter() - start
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    for row in report["files"]:
        row["path"] = Path(row["path"]).name
    return {**report, "wall_seconds": seconds}


def check(reports: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims over all seeds: the mean for accuracies, which vary with the seed, the worst for the rest."""
    runs = [{Path(row["path"]).stem: row for row in report["files"]} for report in reports]
    dense, pruned, int8 = ([run[name] for run in runs] for name in ("dense_float", "pruned_float", "pruned_int8"))

    def worst(rows: list[dict[str, Any]], key: str) -> float:
        return max(row[key] / base[key] for row, base in zip(rows, dense, strict=True))

    gaps = [base["accuracy"] - row["accuracy"] for row, base in zip(int8, dense, strict=True)]
    dense_accuracy = float(np.mean([row["accuracy"] for row in dense]))
    return [
        Claim("wall time of the slowest run, seconds", max(report["wall_seconds"] for report in reports), 240.0),
        # A gap to a poor net would mean nothing.
        Claim("test accuracy of the dense float net, mean, percent", 100 * dense_accuracy, 97.5, at_least=True),
        Claim("test accuracy lost by pruned int8 against dense float, mean, points", 100 * float(np.mean(gaps)), 1.0),
        Claim("MACs of the pruned net over the dense net's, worst", worst(pruned, "macs"), 0.5),
        Claim("bytes of the pruned int8 file over the dense float file's, worst", worst(int8, "file_bytes"), 1 / 6),
        Claim("latency of pruned float over dense float, worst median", max(row["ratio"] for row in pruned), 0.7),
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run (default: 0 1 2)")
    options = parser.parse_args(command_line)
    reports = []
    for seed in options.seeds:
        note(f"Seed {seed}")
        reports.append(run_recipe(seed))
        note(f"Seed {seed}: {reports[-1]['wall_seconds']:.0f} s in all")
    return conclude(options.out, check(reports), {"seeds": options.seeds}, reports)


if __name__ == "__main__":
    sys.exit(main())
