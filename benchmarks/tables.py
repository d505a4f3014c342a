"""Write the measured tables into README.md and docs/: every number there comes from a JSON in benchmarks/results/.

    python benchmarks/tables.py           # after a benchmark has run
    python benchmarks/tables.py --check   # exit 1 if a table is out of date

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. `<!-- table: NAME rows: dense, FPGM -->` shows only
those of its rows whose first column starts so.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _informed_rows import WAYS, lost

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (\w+)(?: rows: ([^>]+?))? -->\n).*?(<!-- end -->)", re.S)


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


def soft_filter_pruning() -> str:
    """Accuracy of half-pruned networks of several widths, by mode and start."""
    rows = load("soft_filter_pruning")["measured"]
    names = [name for name in rows[0] if name != "width"]
    return markdown(
        ["filters", *(str(row["width"]) for row in rows)], [[n, *(f"{r[n]:.1%}" for r in rows)] for n in names]
    )


def informed_choice() -> str:
    """Points that are lost after one shot, by budget, choice and what was done after it."""
    rows = load("informed_choice")["measured"]
    seeds = {(row["task"], row["seed"]) for row in rows}
    tables = []
    for budget in sorted({row["budget"] for row in rows}, reverse=True):
        points = lost(rows, budget)
        each = dict.fromkeys(choice for choice, _ in points)
        cells = [[choice, *(f"{points[choice, name]:.1f}" for name in WAYS)] for choice in each]
        tables.append(markdown([f"at {budget:g} of the MACs", *WAYS], cells))
    tasks = [f"{name} ({sum(task == name for task, _ in seeds)})" for name in sorted({task for task, _ in seeds})]
    return "\n".join(tables) + f"\nTasks (and their seeds): {', '.join(tasks)}.\n"


def compress() -> str:
    """The int8 files of the whole pass: their accuracy and gzip size by task, budget and way."""
    rows = load("compress")["measured"]
    lines = []
    for task, budget, way in dict.fromkeys((row["task"], row["budget"], row["way"]) for row in rows):
        runs = [row for row in rows if (row["task"], row["budget"], row["way"]) == (task, budget, way)]
        means = {name: np.mean([run[name] for run in runs]) for name in ("dense", "float", "int8", "gzip_bytes")}
        scores = [f"{100 * means[name]:.1f}%" for name in ("dense", "float", "int8")]
        cells = [f"{budget:g}", way, str(len(runs)), *scores, f"{means['gzip_bytes'] / 1000:.1f}"]
        lines.append([task, *cells])
    return markdown(["", "MACs", "way", "seeds", "dense", "pruned float", "int8", "gzip kB"], lines)


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


def narrowing() -> str:
    """CPU time of a training in ever smaller models over one without."""
    row = load("narrowing")["measured"]
    cells = [
        f"{row['macs']:.2f}",
        f"{row['fit_cpu_seconds']['median']:.0f}",
        *map(_quartiles, (row["cpu"], row["control"])),
    ]
    header = ["", "MACs left", "CPU seconds of fit", "smaller models over fit", "fit over fit"]
    return markdown(header, [["four convolutions", *cells]])


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


def quantize_zoo() -> str:
    """Every network of keras.applications as an int8 file, by calibration and after quantization-aware training."""
    rows = []
    for name, row in sorted(load("quantize_zoo")["measured"].items()):
        left = Counter(reason.split(": ")[-1] for reason in row["aware"]["left_in_float"].values())
        cells = [
            cell
            for kind in ("calibrated", "aware")
            for cell in (
                f"{row[kind]['file_bytes'] / 1000:,.0f}",
                f"{row[kind]['relative_rms_error']:.3f}",
                f"{row[kind]['max_error_lsb']:.0f}",
            )
        ]
        rows.append([name, *cells, max(left, key=lambda reason: left[reason]) if left else "nothing"])
    header = [
        "network",
        "kB",
        "error",
        "steps",
        "aware kB",
        "aware error",
        "aware steps",
        "left in float after training",
    ]
    return markdown(header, rows)


def foreign_zoo() -> str:
    """Networks of other packages: what is free, exactness, and int8 files in both ways."""
    rows = []
    for name, row in sorted(load("foreign_zoo")["measured"].items(), key=lambda item: item[0].lower()):
        if "crash" in row:
            rows.append([name, "crash", *[""] * 5, row["crash"][:90]])
            continue
        groups = f"{row['groups'] - row['frozen']} of {row['groups']}"
        error = (
            _number_or_refusal(row.get("pruned", {}), "relative_error", ".0e")
            if row["free_channels"]
            else "nothing is free"
        )
        saves = _saved(row.get("pruned", {}))
        files = [_number_or_refusal(row.get(kind, {}), "relative_rms_error", ".3f") for kind in ("calibrated", "aware")]
        rows.append([name, groups, f"{row['free_channels']:.0%}", error, saves, *files, _in_the_way(row)])
    header = ["network", "free groups", "channels", "error", "saves", "int8 error", "aware error", "mostly frozen by"]
    return markdown(header, rows)


def foreign_zoo_refusals() -> str:
    """Why networks of other packages became no int8 file: the first sentence of each message, and which networks."""
    said: dict[str, list[str]] = {}
    for name, row in load("foreign_zoo")["measured"].items():
        for kind in ("calibrated", "aware"):
            if "refused" in row.get(kind, {}):
                sentence = re.split(r"(?<=[a-z)'])\. ", " ".join(row[kind]["refused"].split()))[0]
                sentence = re.sub(r"(?<=[Mm]odel )'\w+'", "...", sentence).replace("|", "/")
                said.setdefault(sentence, []).append(f"{name} ({kind})")
    rows = [[", ".join(sorted(names)), reason] for reason, names in sorted(said.items(), key=lambda item: item[1])]
    return markdown(["network", "what `export` says"], rows)


def _number_or_refusal(part: dict[str, Any], key: str, form: str) -> str:
    return f"{part[key]:{form}}" if key in part else "crash" if "crash" in part else "refused" if part else ""


def _saved(part: dict[str, Any]) -> str:
    if part.get("saves", True) is True:
        return "yes" if "saves" in part else ""
    return "no" if part["original_saves"] is True else "as the original: no"


def _in_the_way(row: dict[str, Any]) -> str:
    """What freezes most, in a few words, besides the outputs of the model."""
    reasons = [*row["unread"].values(), *(each for each in row["frozen_because"] if each != "model output")]
    kinds = Counter(re.sub(r" '[^']*'|'[^']*' ", "", reason).split(":")[0] for reason in reasons)
    return kinds.most_common(1)[0][0].replace("|", "/")[:90] if kinds else "nothing"


def shrink_speed() -> str:
    """How long analysis and a 50% shrink take, and how much memory."""
    measured = load("shrink_speed")["measured"]
    rows = []
    for name, seconds in measured["seconds"].items():
        time = f"{seconds['median']:.2f} ({seconds['low_quartile']:.2f} to {seconds['high_quartile']:.2f})"
        rows.append([name, time, f"{measured['extra_memory_per_weights'][name]:.2f}"])
    return markdown(["at 224 px", "seconds", "peak extra memory, in weights"], rows)


def training_overhead() -> str:
    """CPU time that callbacks add to training: between mask updates, and in one update."""
    measured = load("training_overhead")["measured"]
    rows = []
    for network, steps in measured["steps"].items():
        updates = measured["updates"][network]
        between = {**steps["overhead"], "none, twice": steps["control"]}
        for name in {**between, **updates["SGD"]["update_over_step"]}:
            cells = [_quartiles(between[name]["cpu"]) if name in between else ""]
            for row in (updates[optimizer]["update_over_step"] for optimizer in ("SGD", "Adam")):
                cells.append(f"{row[name]['median']:.2f}" if name in row else "")
            rows.append([f"{network}, {name}", *cells])
    peer = measured["tfmot"]
    for name, ratio in {**peer["overhead"], "none, twice": peer["control"]}.items() if peer else ():
        rows.append([f"ResNet-20 in tf_keras, {name}", _quartiles(ratio["cpu"]), "", ""])
    return markdown(["", "between updates, x plain fit", "update in SGD steps", "update in Adam steps"], rows)


def dynamic_sparse(measured: dict[str, Any] | None = None) -> str:
    """Test accuracy of LeNet-300-100 on Fashion-MNIST by method and sparsity: mean and standard deviation."""
    rows = (measured or load("dynamic_sparse")["measured"])["accuracy"]
    sparsities = sorted({row["sparsity"] for row in rows})
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        by_sparsity = {row["sparsity"]: row for row in rows if row["method"] == method}
        found = [by_sparsity.get(sparsity) for sparsity in sparsities]
        cells = [f"{row['mean']:.2f} ± {row['sd']:.2f}" if row else "" for row in found]
        lines.append([method, *cells, f"{found[-1]['units_without_inputs']:.0f}" if found[-1] else ""])
    percents = [f"{sparsity:.0%}" for sparsity in sparsities]
    return markdown(["test accuracy, %, at", *percents, f"units without inputs at {percents[-1]}, of 400"], lines)


def before_training(rows: Sequence[dict[str, Any]] | None = None) -> str:
    """Test accuracy of networks pruned before training, by network, method, what is trained, and sparsity."""
    found = rows or load("before_training")["measured"]["accuracy"]
    cells = {(row["network"], row["method"], row["variant"], row["sparsity"]): row for row in found}
    sparsities = sorted({row["sparsity"] for row in found} - {0.0})
    lines = []
    for network, method, variant in dict.fromkeys(key[:3] for key in cells):
        columns = [cells.get((network, method, variant, sparsity)) for sparsity in (0.0, *sparsities)]
        numbers = [f"{row['mean']:.2f} ± {row['sd']:.2f}" if row else "" for row in columns]
        lines.append([f"{network}, {method}" + (f", {variant}" if variant else ""), *numbers])
    return markdown(["test accuracy, %, at", "0%", *(f"{sparsity:.0%}" for sparsity in sparsities)], lines)


def lottery(rows: Sequence[dict[str, Any]] | None = None) -> str:
    """Test accuracy by learning rate and by what comes back, at seven densities or fewer, the last among them."""
    found = rows or load("lottery")["measured"]["accuracy"]
    cells = {(row["rate"], row["method"], row["round"]): row for row in found}
    last = max(row["round"] for row in found)
    shown = sorted({round(last * part / 6) for part in range(7)})
    densities = {row["round"]: row["density"] for row in found}
    lines = []
    for rate, method in dict.fromkeys(key[:2] for key in cells):
        columns = [cells.get((rate, method, number)) for number in shown]
        lines.append([f"{rate} rate, {method}", *(_with_deviation(row) if row else "" for row in columns)])
    return markdown(["test accuracy, %, at a density of", *(f"{densities[number]:.1%}" for number in shown)], lines)


def _with_deviation(row: dict[str, Any]) -> str:
    return f"{row['mean']:.2f}" + (f" ± {row['sd']:.2f}" if row["sd"] is not None else "")


def regularization(measured: dict[str, Any] | None = None) -> str:
    """Accuracy, MACs and latency of networks after sparsity regularization, filter pruning, and from scratch."""
    rows = (measured or load("regularization")["measured"])["accuracy"]
    return "\n".join(_regularized(network, rows) for network in dict.fromkeys(row["network"] for row in rows))


def _regularized(network: str, rows: Sequence[dict[str, Any]]) -> str:
    """One table for each network: a line for each method, three columns for each budget."""
    rows = [row for row in rows if row["network"] == network]
    budgets = sorted({row["left"] for row in rows} - {1.0}, reverse=True)
    lines = []
    for method, strength in dict.fromkeys((row["method"], row["strength"]) for row in rows):
        line = [method + (f", {strength:g}" if strength else "")]
        for budget in budgets:
            found = [
                r for r in rows if (r["method"], r["strength"]) == (method, strength) and r["left"] in (budget, 1.0)
            ]
            line += _regularized_cells(found[0]) if found else ["", "", ""]
        lines.append(line)
    header = [column for budget in budgets for column in (f"accuracy at {budget:.0%}, %", "MACs", "latency")]
    return markdown([network, *header], lines)


def _regularized_cells(row: dict[str, Any]) -> list[str]:
    accuracy = f"{row['mean']:.2f}" + (f" ± {row['sd']:.2f}" if row["sd"] is not None else "")
    return [accuracy, f"{row['macs_left']:.2f}", f"{row.get('latency_ratio', 1.0):.2f}"]


def mlperf_tiny_int8() -> str:
    """Agreement of int8 files with float networks, and of quantize-aware models with their files."""
    kinds = ("calibrated", "vendor", "aware")
    rows = []
    for row in load("mlperf_tiny_int8")["measured"]:
        sizes = [f"{row['file_bytes'][kind] / 1000:.0f}" for kind in ("calibrated", "vendor")]
        near = [f"{row['agreement_with_float'][kind]:.1%}" for kind in kinds]
        anywhere = [f"{row['agreement_with_float_anywhere'][kind]:.1%}" for kind in kinds]
        pairs = [f"{one} / {other}" for one, other in zip(near, anywhere, strict=True)]
        own = f"{row['aware_model_and_file']:.1%} / {row['aware_outputs_equal']:.1%}"
        rows.append([row["network"], *pairs, own, *sizes])
    header = ["near / anywhere", "by calibration", "vendor's", "aware", "aware model and file: same class / equal"]
    return markdown([*header, "file kB", "vendor's kB"], rows)


def quantization() -> str:
    """Accuracy, size and latency of int8 files after pruning, tfprune's and TF-MOT's."""
    runs = load("quantization")["measured"]["runs"]
    names = {
        "dense": "dense, int8 by calibration",
        "calibrated": "tfprune, half of the MACs, int8 by calibration",
        "tfprune": "tfprune, half of the MACs, quantization-aware",
        "tfmot": "TF-MOT, half of the weights zero, PQAT",
    }
    rows = []
    for kind, name in names.items():
        files = [run["files"][kind] for run in runs]
        accuracies = [100 * file["accuracy"] for file in files]
        sizes = [f"{np.mean([file[key] for file in files]) / 1000:.1f}" for key in ("file_bytes", "gzip_bytes")]
        latency = f"{np.median([file['latency_ratio'] for file in files]):.2f}"
        rows.append([name, f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}", *sizes, latency])
    pruned = 100 * float(np.mean([run["tfprune"]["pruned_float"] for run in runs]))
    rows.insert(1, ["tfprune, half of the MACs, float", f"{pruned:.2f}", "", "", ""])
    return markdown(["", "test accuracy, %", "kB", "gzip kB", "latency"], rows)


def quantization_overhead() -> str:
    """CPU time of quantization-aware training over training in float."""
    measured = load("quantization_overhead")["measured"]
    rows = []
    for library in ("tfprune", "tfmot"):
        if measured[library]:
            overhead = measured[library]["overhead"].items()
            rows += [[name, _quartiles(row["cpu"])] for name, row in overhead]
    return markdown(["", "x float"], rows)


def claims() -> str:
    """How many of its claims each benchmark found to hold."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        stated = load(path.stem)["claims"]
        if stated:
            held = sum(claim["holds"] for claim in stated)
            rows.append([f"{path.stem}.py", str(len(stated)), str(held)])
    return markdown(["script", "claims", "held"], rows)


def recipe_tables() -> str:
    """Every recipe in its default setting: the first file of its closing table against the last."""
    rows = []
    for run in load("recipe_tables")["measured"]:
        first, last = run["files"][0], run["files"][-1]
        accuracies = [f"{file['accuracy']:.1%}" for file in (first, last) if "accuracy" in file]
        accuracies = accuracies or ["", f"same class: {last['agreement']:.1%}"]
        sizes = [f"{file['file_bytes'] / 1000:,.0f} ({file['gzip_bytes'] / 1000:,.0f})" for file in (first, last)]
        names = f"{run['recipe']}: {Path(first['path']).stem} to {Path(last['path']).stem}".replace("_", " ")
        rows.append([names, *accuracies, *sizes, f"{last['ratio']:.2f}", f"{run['cpu_seconds'] / 60:.1f}"])
    header = ["", "test accuracy", "then", "kB (gzip)", "then", "x latency", "CPU minutes"]
    return markdown(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        *(quickstart, pruned_latency, fpgm_distances, masking_overhead, mlperf_tiny, zoo, shrink_speed),
        *(dynamic_sparse, training_overhead, regularization, mlperf_tiny_int8, quantization, quantization_overhead),
        *(recipe_tables, soft_filter_pruning, before_training, informed_choice, lottery, narrowing, compress),
        *(quantize_zoo, foreign_zoo, foreign_zoo_refusals, claims),
    )
}


def _quartiles(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low_quartile']:.3f} to {ratio['high_quartile']:.3f})"


def filled(text: str) -> str:
    """Return a document with its tables as the results have them."""
    return BLOCK.sub(lambda match: match[1] + _table(match[2], match[3]) + match[4], text)


def _table(name: str, rows: str | None) -> str:
    try:
        whole = TABLES[name]()
    except FileNotFoundError as error:
        return f"Not measured yet: {Path(error.filename).name} is missing.\n"
    return _some_rows(whole, rows.split(", ")) if rows else whole


def _some_rows(tables: str, wanted: Sequence[str]) -> str:
    """Those tables that have all of these rows, cut down to them: by the first column up to a comma."""
    cut = []
    for table in tables.split("\n\n"):
        header, rule, *rows = table.strip().splitlines()
        found = {row: row[2:].partition(" |")[0].split(",")[0] for row in rows}
        if set(wanted) <= set(found.values()):
            cut.append("\n".join([header, rule, *(row for row, name in found.items() if name in wanted)]) + "\n")
    if not cut:
        raise ValueError(f"No table has the rows {list(wanted)}. Name them as the first column does, up to a comma.")
    return "\n".join(cut)


def main(command_line: Sequence[str] | None = None) -> int:
    """Write or check the tables of all documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args(command_line)
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.write_text(filled(text), encoding="utf-8")
    print("\n".join(stale) if stale else "All tables are up to date.")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
