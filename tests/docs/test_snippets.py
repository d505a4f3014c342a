"""Every Python block of every page runs, page by page, in one namespace with `model`, `x` and `y`."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
ELSEWHERE = {
    "compress.md": "test_docs.py",
    "export.md": "test_docs.py",
    "network-slimming.md": "test_docs.py",
    "quantization.md": "test_docs.py",
    "reports.md": "html_report/test_reports_page.py",
    "weight-sparsity.md": "test_docs.py",
}
"""Pages whose blocks another test runs, with more to say about the outcome."""
SLOW = {
    "algorithms/compress.md",
    "deploying/browser.md",
    "deploying/ios.md",
    "depth-pruning.md",
    "filter-pruning.md",
    "one-shot-pruning.md",
    "sparsity-regularization.md",
}
"""Pages with tens of epochs, or several searches and exports."""
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
FENCE = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)


def compiled_net(num_blocks=1):
    """A stem, residual blocks and a head: with everything that one of the methods needs."""

    def conv(tensor):
        return layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(tensor))

    inputs = keras.Input((8, 8, 3), name="image")
    trunk = layers.ReLU()(conv(inputs))
    for _ in range(num_blocks):
        branch = conv(layers.ReLU()(conv(trunk)))
        trunk = layers.ReLU()(layers.Add()([trunk, branch]))
    hidden = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(trunk))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="classes")(hidden), name="net")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    return model


@pytest.fixture
def names(monkeypatch, tmp_path, eager_steps):
    """What a page may take for granted: a compiled model of RGB images, also as a file, and its data."""
    monkeypatch.chdir(tmp_path)
    model = compiled_net()
    model.optimizer.build(model.trainable_variables)
    model.save("model.keras")
    random = np.random.default_rng(0)
    x = random.uniform(size=(32, 8, 8, 3)).astype("float32")
    x[:2] = [[[[0.0]]], [[[1.0]]]]  # the darkest and the brightest pixel, as real images have them
    y = np.arange(32) % 3
    return {"__name__": "snippet", "model": model, "x": x, "y": y, "x_train": x, "y_train": y}


def blocks(page):
    return FENCE.findall(PAGES[page])


def to_run():
    pages = [page for page in PAGES if page not in ELSEWHERE and blocks(page)]
    return [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in pages]


# On random data, and in few steps, a strength that is meant for a real network finds nothing that can go.
@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:No channel of the model is dead:UserWarning")
@pytest.mark.parametrize("page", to_run())
def test_python_blocks_run_as_printed(page, names, tmp_path):
    if page in ("depth-pruning.md", "what-can-go.md"):
        names["model"] = compiled_net(num_blocks=2)  # the pages take out several
    model, code = names["model"], blocks(page)
    for block in code:
        exec(compile(block, page, "exec"), names)
    written = set(re.findall(r'"([\w-]+\.tflite)"', "".join(code)))
    assert {path.name for path in tmp_path.glob("*.tflite")} == written
    if "small" in names and "Lasso" not in code[0] and "Selection" not in code[0]:
        assert tfprune.profile(names["small"]).parameters < tfprune.profile(model).parameters


@pytest.mark.parametrize("page", PAGES)
def test_no_python_block_hides_from_the_test(page):
    fences = re.findall(r"^.*```\s*(?:py|python\d?|pycon)\b.*$", PAGES[page], re.M)
    assert fences == ["```python"] * len(blocks(page))


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_other_tests_run_the_other_pages(page, test):
    assert blocks(page)
    assert re.search(rf"[\"/]{page}\"", (TESTS / test).read_text())
