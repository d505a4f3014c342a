"""What docs/reports.md tells people to run, runs."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import compiled, dense, images
from pages import SECTIONS, Reader

PAGE = (Path(__file__).parents[2] / "docs/reports.md").read_text()


@pytest.mark.slow
def test_snippets_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = images(16, shape=(2,))

    def build():
        return compiled(dense((8, 3)), jit_compile=False)

    names = {"build": build, "dense": build(), "model": build(), "x": x, "y": y, "x_test": x, "y_test": y}
    report, board = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(report, names)
    reader = Reader((tmp_path / "report.html").read_text("utf-8"))
    assert [attributes["id"] for attributes in reader.having("section")] == SECTIONS
    # The table in the page names the parts as the report does.
    headings = re.findall(r"^\| ([A-Z][a-z ]+) \|", PAGE, re.M)
    assert len(headings) == len(SECTIONS)
    assert all(heading in reader.text for heading in headings)
    assert len(list((tmp_path / "report_plots").glob("*.png"))) > 10

    exec(board, names)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"train", "masks"}
    model = names["model"]
    assert isinstance(model, keras.Model)
    assert np.count_nonzero(model.get_layer("hidden").kernel.numpy().any(axis=0)) == 4
