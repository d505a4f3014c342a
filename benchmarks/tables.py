"""Write the measured tables into README.md and docs/: every number there comes from a JSON in benchmarks/results/.

    python benchmarks/tables.py           # after a benchmark has run
    python benchmarks/tables.py --check   # exit 1 if a table is out of date

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def load(name: str) -> dict[str, Any]:
    """Return a benchmark's result."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: text in the first column, numbers to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def quickstart() -> str:
    """The quickstart's own table: means over the seeds, sizes of the first."""
    reports = load("quickstart_claims")["measured"]
    rows = []
    for index, row in enumerate(reports[0]["files"]):
        runs = [report["files"][index] for report in reports]
        accuracies = [100 * run["accuracy"] for run in runs]
        rows.append(
            [
                Path(row["path"]).stem.replace("_", " "),
                f"{np.mean(accuracies):.2f}% ({min(accuracies):.1f} to {max(accuracies):.1f})",
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e6:.2f} M",
                f"{row['file_bytes'] / 1000:,.0f}",
                f"{row['gzip_bytes'] / 1000:,.0f}",
                f"{np.median([run['median_ms'] for run in runs]):.3f}",
                f"{np.median([run['ratio'] for run in runs]):.2f}",
            ]
        )
    header = ["", "test accuracy", "parameters", "MACs", "file kB", "gzip kB", "latency ms", "x dense"]
    return markdown(header, rows)


def pruned_latency() -> str:
    """Latency of half-pruned networks over the dense ones."""
    rows = []
    for row in load("pruned_latency")["measured"]:
        cells = []
        for kind in ("float", "int8"):
            low, high = row[kind]["latency_ratio_quartiles"]
            cells.append(f"{row[kind]['latency_ratio']:.2f} ({low:.2f} to {high:.2f})")
        rows.append([row["network"], f"{row['macs_ratio']:.2f}", *cells])
    return markdown(["FPGM(0.5)", "MACs", "float latency", "int8 latency"], rows)


def fpgm_distances() -> str:
    """FPGM's distances against scipy's, for several shapes of kernels."""
    rows = []
    for row in load("fpgm_distances")["measured"]:
        speedup = row["speedup_cpu"]
        times = f"{speedup['median']:.1f} ({speedup['low_quartile']:.1f} to {speedup['high_quartile']:.1f})"
        rows.append([f"{row['filters']} x {row['weights_per_filter']}", times, f"{row['max_relative_difference']:.0e}"])
    return markdown(["filters x weights", "times as fast as cdist", "largest relative difference"], rows)


def masking_overhead() -> str:
    """CPU time of training with hard FPGM over training without."""
    rows = []
    for batch, row in load("masking_overhead")["measured"].items():
        cells = [
            f"{row[key]['median']:.3f} ({row[key]['low_quartile']:.3f} to {row[key]['high_quartile']:.3f})"
            for key in ("overhead", "control")
        ]
        rows.append([batch, *cells])
    return markdown(["batch", "with the callback over without", "without over without"], rows)


def mlperf_tiny() -> str:
    """Trained networks pruned in one shot: sizes, and how often two networks name the same class."""
    rows = []
    for row in load("mlperf_tiny")["measured"]:
        sizes = [f"{row[key][1] / row[key][0]:.2f}" for key in ("parameters", "macs", "int8_bytes")]
        pairs = (
            "pruned_and_dense",
            "recalibrated_and_dense",
            "dense_recalibrated_and_dense",
            "recalibrated_and_dense_recalibrated",
        )
        shares = [f"{row[key]['share']:.1%} ({row[key]['kappa']:.2f})" for key in pairs]
        rows.append([f"{row['network']}, {row['criterion']}", *sizes, *shares])
    header = [
        *("", "parameters", "MACs", "int8 file", "pruned, dense", "pruned R, dense"),
        *("dense R, dense", "pruned R, dense R"),
    ]
    return markdown(header, rows)


def zoo() -> str:
    """Every network of keras.applications, half of its channels removed."""
    rows = []
    for name, row in sorted(load("zoo")["measured"].items()):
        parameters = " to ".join(f"{count / 1e6:.2f} M" for count in row["parameters"])
        macs = " to ".join(f"{count / 1e6:,.0f} M" for count in row["macs"])
        seconds = f"{row['analysis_seconds'] + row['shrink_seconds']:.1f}"
        free, error = f"{row['free_channels']:.1%}", f"{row['relative_error']:.0e}"
        rows.append([name, str(row["groups"]), str(row["frozen"]), free, parameters, macs, error, seconds])
    header = ["network", "groups", "frozen", "free channels", "parameters", "MACs", "relative error", "seconds"]
    return markdown(header, rows)


def shrink_speed() -> str:
    """How long analysis and a 50% shrink take, and how much memory."""
    measured = load("shrink_speed")["measured"]
    rows = []
    for name, seconds in measured["seconds"].items():
        time = f"{seconds['median']:.2f} ({seconds['low_quartile']:.2f} to {seconds['high_quartile']:.2f})"
        rows.append([name, time, f"{measured['extra_memory_per_weights'][name]:.2f}"])
    return markdown(["at 224 px", "seconds", "peak extra memory, in weights"], rows)


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (quickstart, pruned_latency, fpgm_distances, masking_overhead, mlperf_tiny, zoo, shrink_speed)
}


def filled(text: str) -> str:
    """Return a document with its tables as the results have them."""
    return BLOCK.sub(lambda match: match[1] + _table(match[2]) + match[3], text)


def _table(name: str) -> str:
    try:
        return TABLES[name]()
    except FileNotFoundError as error:
        return f"Not measured yet: {Path(error.filename).name} is missing.\n"


def main(command_line: Sequence[str] | None = None) -> int:
    """Write or check the tables of all documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(command_line)
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(filled(text), encoding="utf-8")
    print("\n".join(stale) if stale else "All tables are up to date.")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
