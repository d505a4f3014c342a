"""What benchmarks/mlperf_tiny.py counts, by hand, without its packages."""

import keras
import mlperf_tiny
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("first", "second", "share", "kappa"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0], 1.0, 1.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0.5, 0.0),  # what chance gives
        ([0, 0, 1, 1], [1, 1, 0, 0], 0.0, -1.0),
        ([0, 0, 0, 1], [0, 0, 0, 0], 0.75, 0.0),  # one class alone: no better than chance
        ([0, 0, 1, 1], [0, 0, 1, 0], 0.75, 0.5),  # chance 0.5 * 0.75 + 0.5 * 0.25 = 0.5
        ([3, 3], [3, 3], 1.0, 0.0),  # chance alone explains it
    ],
)
def test_agreement_by_hand(first, second, share, kappa):
    assert mlperf_tiny.agreement(np.array(first), np.array(second)) == {"share": share, "kappa": pytest.approx(kappa)}


def row(**changes):
    kept = {"parameters": [100, 60], "macs": [100, 60], "int8_bytes": [100, 80]}
    pairs = {"pruned_and_dense": {"kappa": 0.1}, "recalibrated_and_dense_recalibrated": {"kappa": 0.2}}
    return {"network": "net", "criterion": "L1", **kept, **pairs, **changes}


def test_all_promises_kept():
    assert all(claim.holds for claim in mlperf_tiny.check([row(), row()]))


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"parameters": [100, 66]}, "parameters"),
        ({"macs": [100, 66]}, "operations"),
        ({"int8_bytes": [100, 91]}, "int8 bytes"),
        ({"pruned_and_dense": {"kappa": 0.3}}, "over before"),
        (
            {"pruned_and_dense": {"kappa": 0.0}, "recalibrated_and_dense_recalibrated": {"kappa": 0.04}},
            "both recalibrated",
        ),
    ],
)
def test_one_bad_row_breaks_its_promise(changes, promise):
    (failing,) = [claim.text for claim in mlperf_tiny.check([row(), row(**changes)]) if not claim.holds]
    assert promise in failing


def test_stretching_is_linear():
    clip = np.array([[0.0, 10.0], [2.0, 30.0]])
    assert mlperf_tiny.stretch(clip, 3).tolist() == [[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]]
    assert mlperf_tiny.stretch(clip[:1], 2).tolist() == [[0.0, 10.0]] * 2


def test_augmented_pictures_have_the_size_and_range_and_differ():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype("uint8")
    generator = np.random.default_rng(1)
    varied = [mlperf_tiny.augment(image, 32, generator) for _ in range(20)]
    assert {each.shape for each in varied} == {(32, 32, 3)}
    assert all(each.min() >= 0 and each.max() <= 255 for each in varied)
    assert len({each.tobytes() for each in varied}) == 20


def test_a_depthwise_convolution_of_keras_2_is_read():
    config = {**keras.layers.DepthwiseConv2D(3, strides=2, name="old").get_config(), "groups": 1}
    layer = mlperf_tiny.OldDepthwiseConv2D.from_config(config)
    assert type(layer) is keras.layers.DepthwiseConv2D
    assert (layer.name, layer.strides) == ("old", (2, 2))


def test_a_missing_package_is_named():
    with pytest.raises(SystemExit, match="no_such_package is not installed"):
        mlperf_tiny.package_folder("no_such_package")
