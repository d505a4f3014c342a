"""The picture of a comparison: names on it, apart from each other, or an error that helps."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tfprune.measure import ComparedModel, Comparison, Latency
from tfprune.measure.picture import Box, place


def comparison(names, scores=None, macs=None):
    count = len(names)
    scores = np.linspace(0.9, 0.8, count) if scores is None else scores
    macs = np.linspace(1e6, 1e5, count).astype(int).tolist() if macs is None else macs
    rows = []
    for name, score, operations in zip(names, scores, macs, strict=True):
        latency = Latency(1, 0.2, 0.3, 1.0, 0.9, 1.1)
        rows.append(ComparedModel(name, score, 10, 9, operations, 2000, 1500, latency, latency, None))
    return Comparison(tuple(rows), "accuracy", 100, 5)


def texts(path):
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter() if node.tag.endswith("text")]


def test_every_name_is_in_every_panel(tmp_path):
    names = ["dense", "half & <half>", "price $5 or $6", "a name that is much too long for a panel " * 2]
    path = comparison(names).plot(tmp_path / "picture.svg")
    written = [" ".join(text.split()) for text in texts(path)]
    for name in names:
        assert written.count(" ".join(name.split())) == 3
    assert {"MACs", "file size", "latency, 1 thread", "accuracy, %"} <= set(written)


def test_the_same_comparison_gives_the_same_bytes(tmp_path):
    first, second = (comparison(["a", "b"]).plot(tmp_path / f"{name}.svg").read_bytes() for name in "ab")
    assert first == second


def test_png_is_upright_and_no_other_file_is_left(tmp_path):
    path = comparison(["a", "b"]).plot(tmp_path / "picture.png")
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert 600 < width < height
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_operations_that_are_not_known_are_said(tmp_path):
    path = comparison(["a", "loops"], macs=[100, None]).plot(tmp_path / "picture.svg")
    assert "MACs (not known: loops)" in texts(path)
    assert texts(path).count("loops") == 2
    assert "?" in str(comparison(["a", "loops"], macs=[100, None]))


def test_names_keep_apart_even_where_points_are_the_same():
    area = Box(0, 0, 400, 300)
    random = np.random.default_rng(0)
    points = [(200.0, 150.0)] * 6 + [tuple(point) for point in random.uniform(20, 280, (12, 2))]
    boxes = place(points, [(70, 14)] * 18, area)
    for index, box in enumerate(boxes):
        assert box.left >= 0 <= box.low
        assert box.right <= 400
        assert box.high <= 300
        for other in boxes[:index]:
            assert box.right <= other.left or other.right <= box.left or box.high <= other.low or other.high <= box.low
        for x, y in points:
            assert not (box.left < x < box.right and box.low < y < box.high)


def test_a_full_area_still_gives_every_name_a_place():
    assert len(place([(5, 5)] * 3, [(50, 10)] * 3, Box(0, 0, 20, 20))) == 3


def test_what_cannot_be_drawn(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"end in one of \['.svg', '.png'\]"):
        comparison(["a"]).plot(tmp_path / "picture.pdf")
    with pytest.raises(ValueError, match="no place on an axis"):
        comparison(["a"], scores=[float("nan")]).plot(tmp_path / "picture.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'tfprune\[plot\]'"):
        comparison(["a"]).plot(tmp_path / "picture.svg")
    assert list(tmp_path.iterdir()) == []
