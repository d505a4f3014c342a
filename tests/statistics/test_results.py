"""Statistics in files, and of other models."""

import keras
import numpy as np
import pytest

from tfprune.statistics import Statistics

L = keras.layers


def network(units=3):
    return keras.Sequential([keras.Input((2,)), L.Dense(units, name="hidden"), L.Dense(2, name="answer")], name="net")


def statistics(units=3):
    return Statistics(
        8,
        {"gradient": {"net/hidden/kernel": np.ones((2, units), "float32")}},
        {"gate_gradient": {"hidden": np.arange(units, dtype="float32")}},
    )


def test_come_back_from_a_file(tmp_path):
    path = statistics().save(tmp_path / "found.npz")
    found = Statistics.load(path, network())
    assert found.num_samples == 8
    assert [each[:3] for each in found.each()] == [each[:3] for each in statistics().each()]
    assert found.of_group("hidden")["gate_gradient"].tolist() == [0, 1, 2]
    assert found.of_variable("net/hidden/kernel")["gradient"].dtype == np.float32
    assert repr(found) == "Statistics(gate_gradient, gradient, 8 samples)"
    assert [each.name for each in tmp_path.iterdir()] == ["found.npz"]


@pytest.mark.parametrize("units", [4, 3])
def test_of_another_model_are_refused(tmp_path, units):
    path = statistics(units).save(tmp_path / "found.npz")
    other = network() if units == 4 else keras.Sequential([keras.Input((2,)), L.Dense(3, name="other"), L.Dense(2)])
    message = (
        r"the shape \(2, 4\), and 'net' has the shape \(2, 3\) there" if units == 4 else "has nothing of that name"
    )
    with pytest.raises(ValueError, match=f"These are the statistics of another model: 'gradient' of .*{message}"):
        Statistics.load(path, other)


def test_damaged_files_are_refused(tmp_path):
    path = statistics().save(tmp_path / "found.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"found.npz' holds no statistics, or is damaged"):
        Statistics.load(path)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match=r"other.npz' holds no statistics, or is damaged"):
        Statistics.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        Statistics.load(tmp_path / "missing.npz")
