"""Links lead somewhere, commands name what exists, and what some pages tell people to run does what they say.

The Python of all other pages runs in tests/docs/test_snippets.py.
"""

import re
import runpy
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HOOKS = runpy.run_path(str(DOCS / "site_hooks.py"))


def snippets(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def anchors(path):
    """The anchors of a page: of its titles as code hosts make them, and of the objects that mkdocstrings shows."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    titles = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)", text, re.M)]
    return {*titles, *re.findall(r"^::: ([\w.]+)", HOOKS["with_names"](text), re.M)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    here = DOCS / page
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", here.read_text(), flags=re.S)):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            there = (here.parent / name).resolve() if name else here
            if not there.is_file() or DOCS not in there.parents or (anchor and anchor not in anchors(there)):
                broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_exists(page):
    extras = (ROOT / "setup.py").read_text()
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.S):
        for command in re.split(r"\n|&&", block):
            words = shlex.split(command, comments=True)
            if words[:1] == ["python"] and words[1:2] != ["-m"]:
                assert (ROOT / words[1]).is_file(), command
            for wanted in re.findall(r"\[([\w-]+)\]", command) if words[:2] == ["pip", "install"] else ():
                assert f'"{wanted}": ' in extras, command


def test_every_benchmark_is_named_with_its_claim():
    scripts = {path.name for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    text = (DOCS / "benchmarks.md").read_text()
    assert set(re.findall(r"^\| `(\w+\.py)` \|", text, re.M)) == scripts


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    algorithms = [path for page in HOOKS["algorithm_pages"]() for path in page.values()]
    assert sorted([*re.findall(r"[\w/-]+\.md", menu), *algorithms]) == PAGES


def test_reference_has_every_public_name():
    shown = {
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: ([\w.]+)", HOOKS["with_names"](page.read_text()), re.M)
    }
    public = [f"tfprune.{name}" for name in tfprune.__all__ if name not in ("callbacks", "layers")]
    public += [
        f"tfprune.{room.__name__[8:]}.{name}" for room in (tfprune.callbacks, tfprune.layers) for name in room.__all__
    ]
    assert [name for name in public if name not in shown] == []


def test_every_algorithm_has_a_page():
    algorithms = {*tfprune.callbacks.__all__, "prune_channels", "quantize_aware", "compress"}
    helpers = {"FreezeBatchNormalization", "LayerwiseDensity", "MaskImages"}
    helpers |= {"FilterPruning", "GammaRegularization", "SparseTraining", "SparsityRegularization", "Stage"}
    titles = {path.read_text().partition(":")[0].removeprefix("# ") for path in (DOCS / "algorithms").glob("*.md")}
    assert titles == algorithms - helpers


@pytest.mark.slow
def test_weight_sparsity_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def build():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(8, 3, activation="relu", name="stem"),
                keras.layers.DepthwiseConv2D(3, name="depthwise"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax", name="classes"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        return model

    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    names = {"build": build, "model": build(), "x": x, "y": np.arange(64) % 3}
    first, *others = snippets("weight-sparsity.md")
    exec(first, names)
    # Of 72 weights 64 go, of 384 weights 345; the depthwise kernel stays dense.
    report = tfprune.layerwise_density(names["model"])
    assert [row.weights - row.living for row in report.kernels] == [64, 0, 345]
    assert len(report.epochs) == 20
    for code in others:
        exec(code, names)
    printed = capsys.readouterr().out
    # "RigL 0.899..." and so on: of 456 weights at most 410 go, and layers round down apart.
    reached = {name: float(value) for name, value in re.findall(r"^(\w+) (0\.\d+)$", printed, re.M)}
    assert reached == pytest.approx(dict.fromkeys(("GraNet", "RigL", "SET", "StaticSparsity"), 0.9), abs=0.01)
    # RigL went on after it was loaded, and fine-tuning held what it had pruned.
    report = tfprune.layerwise_density(names["model"], exclude=[names["model"].get_layer("depthwise")])
    assert (report.weights, report.weights - report.living) == (456, round(456 * reached["RigL"]))


def normalized_net(filters):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(filters, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def test_network_slimming_runs_as_printed(eager_steps):
    model = normalized_net(8)
    random = np.random.default_rng(0)
    space = {"model": model, "x": random.normal(size=(8, 8, 8, 2)), "y": random.integers(0, 3, 8)}
    first, second = snippets("network-slimming.md")
    exec(first, space)
    assert space["small"].layers[0].filters == 4
    exec(second, space)
    assert space["wide"].layers[0].filters == 8


@pytest.mark.slow
def test_quantization_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = normalized_net(4)
    random = np.random.default_rng(0)
    space = {"model": model, "x": random.normal(size=(32, 8, 8, 2)).astype("float32"), "y": np.arange(32) % 3}
    for code in snippets("quantization.md"):
        exec(code, space)
    assert (tmp_path / "model.tflite").exists()
    assert tfprune.compare([model, "model.tflite"], (space["x"], space["y"])) is not None


@pytest.mark.slow
def test_export_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu", name="sparse"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    random = np.random.default_rng(0)
    kernel = model.get_layer("sparse").kernel
    kernel.assign(kernel.numpy() * (random.uniform(size=kernel.shape) > 0.8))
    x = random.uniform(size=(32, 8, 8, 3)).astype("float32")
    x[:2] = [[[[0.0]]], [[[1.0]]]]  # metadata for task libraries needs the darkest and the brightest pixel
    names = {"model": model, "small": model, "x_train": x, "x_test": x, "y_test": np.arange(32) % 2}
    for code in snippets("export.md"):
        exec(code, names)
    assert {path.name for path in tmp_path.glob("*.tflite")} == {"model.tflite", "sparse.tflite", "pets.tflite"}
    assert names["logits"].shape == (32, 2)
    assert {"comparison.svg", "comparison.json"} <= {path.name for path in tmp_path.iterdir()}


def test_compress_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    random = np.random.default_rng(0)
    (code,) = snippets("compress.md")
    exec(code, {"model": model, "x": random.normal(size=(24, 8)).astype("float32"), "y": np.arange(24) % 3})
    assert (tmp_path / "model.tflite").exists()
    assert "Budget met: macs" in capsys.readouterr().out
