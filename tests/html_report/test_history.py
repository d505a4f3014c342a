"""Where the numbers of a training come from."""

import json

import keras
import numpy as np
import pytest
from networks import compiled, dense, images

from tfprune.callbacks import LayerwiseDensity
from tfprune.html_report.history import read_history

NAN = float("nan")


def test_a_history_is_the_same_from_everywhere(tmp_path):
    model = compiled(dense(), run_eagerly=True)
    x, y = images(16, shape=(2,))
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[LayerwiseDensity(), logger])
    (tmp_path / "history.json").write_text(json.dumps(history.history))
    expected = {name: tuple(values) for name, values in history.history.items()}
    assert {"loss", "accuracy", "density", "density/hidden", "sparsity"} <= set(expected)
    for source in (history, history.history, tmp_path / "history.json", str(tmp_path / "log.csv")):
        found = read_history(source)
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values)


def test_what_is_missing_is_nan(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n0,1.5,NA\n1,inf,0.5\n2")
    found = read_history(tmp_path / "log.csv")
    assert found == {
        "loss": pytest.approx((1.5, float("inf"), NAN), nan_ok=True),  # the last line was cut off
        "val_loss": pytest.approx((NAN, 0.5, NAN), nan_ok=True),
    }
    (tmp_path / "history.json").write_text('{"loss": [null, 1, NaN], "none": []}')
    assert read_history(tmp_path / "history.json") == {"loss": pytest.approx((NAN, 1, NAN), nan_ok=True)}
    assert read_history({"rate": np.array([1, 0.5], "float32"), "\x00": [np.float32(2)]}) == {
        "rate": (1, 0.5),
        "\N{REPLACEMENT CHARACTER}": (2,),
    }
    assert read_history(None) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", b""),
        ("log.csv", b"epoch,loss\n0,high\n"),
        ("log.csv", b"\x89PNG\r\n\x1a\n"),
        ("log.json", b""),
        ("log.json", b"[1, 2]"),
        ("log.json", b'{"loss": 1}'),
        ("log.json", b"\xff\xfe"),
    ],
)
def test_files_that_hold_no_history(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_history(tmp_path / name)
