"""What a page in docs/ tells people to run, runs; and its links lead somewhere."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune

DOCS = Path(__file__).parent.parent / "docs"


def snippets(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    titles = re.findall(r"^#+ (.*)", text, re.M)
    anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert [link for link in links if link not in anchors and not (DOCS / link).exists()] == []


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


def test_network_slimming_runs_as_printed():
    model = normalized_net(8)
    random = np.random.default_rng(0)
    space = {"model": model, "x": random.normal(size=(8, 8, 8, 2)), "y": random.integers(0, 3, 8)}
    first, second = snippets("network-slimming.md")
    exec(first, space)
    assert space["small"].layers[0].filters == 4
    exec(second, space)
    assert space["wide"].layers[0].filters == 8


def test_quantization_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = normalized_net(4)
    random = np.random.default_rng(0)
    space = {"model": model, "x": random.normal(size=(32, 8, 8, 2)).astype("float32"), "y": np.arange(32) % 3}
    for code in snippets("quantization.md"):
        exec(code, space)
    assert (tmp_path / "model.tflite").exists()
    assert tfprune.compare([model, "model.tflite"], (space["x"], space["y"])) is not None


def test_compress_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    random = np.random.default_rng(0)
    (code,) = snippets("compress.md")
    exec(code, {"model": model, "x": random.normal(size=(40, 8)).astype("float32"), "y": np.arange(40) % 3})
    assert (tmp_path / "model.tflite").exists()
    assert "Budget met: macs" in capsys.readouterr().out
