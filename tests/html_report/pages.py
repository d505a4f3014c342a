"""What reports are made of in tests, and a reader of pages."""

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from networks import randomize, residual

from tfprune.schedules import Constant, Cosine, Polynomial

HISTORY = {
    "loss": [1.5, float("nan"), 0.5],
    "accuracy": [0.25, 0.5, 0.75],
    "val_accuracy": [0.5],
    "density": [1.0, 0.5, 0.25],
    "density/stem": [1.0, 0.75, 0.5],
    "density/<i>&": [1.0, 0.5, 0.25],
}
SCHEDULES = {
    "sparsity": Polynomial(0.8, begin=20, end=500, frequency=25),
    "drop": Cosine(0.3, end=7500, frequency=20),
    "without end": Constant(0.3, frequency=5),
}
NAMES = ["residual", 'half & <b>"bold"</b>', "int8.tflite"]
SECTIONS = ["summary", "costs", "layers", "training", "schedules", "groups", "exports"]


@dataclass
class Made:
    """What went into a report, and where it is."""

    page: Path
    models: dict
    data: tuple
    export: object


class Reader(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment, which nobody wrote: {data}")

    def having(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def half_pruned():
    """A residual network half of whose weights in the branch are zero."""
    model = randomize(residual(), seed=1)
    kernel = model.get_layer("branch").kernel
    values = kernel.numpy()
    values[..., 0::2, :] = 0
    kernel.assign(values)
    return model
