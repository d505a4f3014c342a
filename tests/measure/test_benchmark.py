import json

import keras
import numpy as np
import pytest

from tfprune.common.files import gzip_size
from tfprune.exporting import export
from tfprune.measure import benchmark
from tfprune.measure.benchmarking import _summarize
from tfprune.tflite.model import TFLiteModel


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, units in (("small", 8), ("large", 512)):
        layers = [keras.layers.Dense(units), keras.layers.Dense(units), keras.layers.Dense(4)]
        export(keras.Sequential([keras.Input((64,)), *layers]), folder / f"{name}.tflite")
    return folder / "small.tflite", folder / "large.tflite"


@pytest.mark.slow
def test_a_much_larger_file_takes_longer(files):
    small, large = files
    report = benchmark(small, large, runs=15, warmup=2)
    first, second = report.files
    assert (first.path, second.path) == (str(small), str(large))
    assert first.ratio == first.ratio_low == first.ratio_high == 1.0
    assert second.ratio > 2
    assert second.ratio_low <= second.ratio <= second.ratio_high
    assert 0 < first.median_ms <= first.p90_ms
    assert second.file_bytes == large.stat().st_size
    assert second.gzip_bytes == gzip_size(large.read_bytes())


def test_summary_of_hand_made_latencies(files):
    models = [TFLiteModel(path) for path in files]
    # the machine slows down tenfold half-way: latencies jump, the ratio stays at 2
    seconds = np.array([[1e-3, 2e-3]] * 6 + [[1e-2, 2e-2]] * 5)
    first, second = _summarize(["a", "b"], models, seconds)
    assert (first.median_ms, first.p90_ms) == (1.0, 10.0)
    assert (second.median_ms, second.p90_ms) == (2.0, 20.0)
    assert (second.ratio_low, second.ratio, second.ratio_high) == (2.0, 2.0, 2.0)


def test_quartiles_are_of_ratios_within_a_round(files):
    models = [TFLiteModel(path) for path in files]
    seconds = np.array([[1.0, 1.0], [2.0, 4.0], [1.0, 3.0], [2.0, 8.0], [1.0, 5.0]])
    second = _summarize(["a", "b"], models, seconds)[1]
    assert (second.ratio_low, second.ratio, second.ratio_high) == (2.0, 3.0, 4.0)


def test_report_prints_and_saves(files, tmp_path):
    report = benchmark(files[0], runs=1, warmup=0)
    assert "small.tflite" in str(report)
    saved = json.loads(report.save(tmp_path / "report.json").read_text())
    assert saved["runs"] == 1
    assert saved["files"][0]["ratio"] == 1.0


def test_int8_and_index_inputs_can_be_timed(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 4), keras.layers.GlobalAveragePooling1D()]
    )
    words = np.random.default_rng(0).integers(0, 5, (40, 3))
    export(model, tmp_path / "words.tflite", quantize="int8", calibration=words)
    export(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
        tmp_path / "int8.tflite",
        quantize="int8",
        calibration=words / 5,
    )
    report = benchmark(tmp_path / "words.tflite", tmp_path / "int8.tflite", runs=3, warmup=0)
    assert all(file.median_ms > 0 for file in report.files)


@pytest.mark.parametrize(("num_threads", "loads"), [(1, 1), (2, 5)])
def test_threads_find_several_places(files, monkeypatch, num_threads, loads):
    loaded = []

    class Counted(TFLiteModel):
        def __init__(self, *args):
            loaded.append(args[1])
            super().__init__(*args)

    monkeypatch.setattr("tfprune.measure.benchmarking.TFLiteModel", Counted)
    report = benchmark(files[0], files[0], runs=7, warmup=0, num_threads=num_threads)
    assert loaded == [num_threads] * 2 * loads
    assert [file.path for file in report.files] == [str(files[0])] * 2


def test_bad_arguments_are_refused_before_any_timing(files, tmp_path, monkeypatch):
    monkeypatch.setattr(TFLiteModel, "invoke", lambda self: pytest.fail("timed something"))
    with pytest.raises(ValueError, match="at least one path"):
        benchmark()
    with pytest.raises(FileNotFoundError, match="missing"):
        benchmark(files[0], tmp_path / "missing.tflite")
    with pytest.raises(TypeError, match=r"by their paths. Received: Sequential. Export a model first"):
        benchmark(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is a Keras model, and a .tflite file is needed. Export it first"):
        benchmark(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="runs of 1 or more"):
        benchmark(files[0], runs=0)
    with pytest.raises(ValueError, match="warmup of 0 or more"):
        benchmark(files[0], warmup=-1)
