"""Published networks, half of their channels removed: all forty with `-m zoo`, small and unlike ones always."""

import keras
import numpy as np
import pytest
import quantize_zoo
import zoo

import tfprune

FAST = [
    "MobileNet",
    "ConvNeXtTiny",
    "EfficientNetV2B0",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "VGG16",
    "Xception",
]


def test_there_are_forty_networks():
    assert len(zoo.NETWORKS) == 40
    assert set(FAST) <= set(zoo.NETWORKS)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", FAST)
def test_half_of_a_network_equals_the_masked_one(name, tmp_path):
    model = zoo.build(name)
    kept = {group.name: int(keep.sum()) for group, keep in zoo.mask_channels(model).items()}
    images = np.random.default_rng(1).uniform(0, 255, (4, *model.input_shape[1:])).astype("float32")
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, images)  # masked layers feed on other statistics; without this the signal dies
    small = tfprune.shrink(model)
    expected, found = model(images[:2], training=False).numpy(), small(images[:2], training=False).numpy()
    # The outputs of a deep network without normalization hardly vary: compare with how much they do.
    difference, spread = np.abs(expected - found).max(), np.abs(expected[0] - expected[1]).max()
    assert spread > 1e-4 * np.abs(expected).max()
    assert difference < min(zoo.TOLERANCE * np.abs(expected).max(), 0.01 * spread)
    assert {group.name: group.size for group in tfprune.channel_groups(small).free} == kept
    assert small.count_params() < 0.65 * model.count_params()
    assert zoo.saves(small, tmp_path / "small.keras", images[:2], found)


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_a_network_prunes_saves_converts_and_trains(name):
    row = zoo.check(name)
    assert row["relative_error"] < zoo.TOLERANCE
    assert row["output_spread"] > 1e-4
    assert row["parameters"][1] < 0.65 * row["parameters"][0]
    assert row["macs"][1] < 0.65 * row["macs"][0]
    assert row["free_channels"] >= (0.75 if name.startswith("ConvNeXt") else 0.9)
    assert (row["saves"], row["converts"], row["trains"]) == (True, True, True)


INTEGER = ("EfficientNetB0", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50V2", "VGG16")


@pytest.mark.zoo
@pytest.mark.parametrize("name", [*INTEGER, "ConvNeXtTiny"])
def test_a_network_becomes_an_int8_file_by_calibration_and_by_training(name):
    row = quantize_zoo.check(name)  # `export` refuses a file that computes something else
    assert max(row[kind]["relative_rms_error"] for kind in ("calibrated", "aware")) < quantize_zoo.TOLERANCE
    reasons = set(row["aware"]["left_in_float"].values())
    assert reasons == set() if name in INTEGER else any("LayerNormalization" in reason for reason in reasons)
