"""Networks of other packages than Keras, where these are installed."""

import importlib.util

import foreign_zoo
import pytest
from _foreign_networks import NETWORKS

SOME = [
    *("keras_hub.GPT2", "keras_hub.HGNetV2", "keras_hub.RetinaNet", "keras_hub.Llama3", "k3im.SimpleViT"),
    *("keras_climate.NBeats", "keras_rs.FeatureCross", "ncps.CfC", "tcn.TCN", "kimm.LCNet050"),
]
FREE = {"keras_hub.GPT2": 0.6, "keras_hub.HGNetV2": 0.9, "keras_hub.Llama3": 0.5, "kimm.LCNet050": 0.9}
"""What share of the channels is free at least."""


def test_sixty_networks_and_more_are_known():
    assert len(NETWORKS) >= 60
    assert set(SOME) <= set(NETWORKS)


@pytest.mark.zoo
@pytest.mark.parametrize("name", SOME)
def test_a_network_of_another_package_is_pruned_exactly_and_exported_or_refused(name):
    package = name.partition(".")[0]
    if importlib.util.find_spec(foreign_zoo.PACKAGES.get(package, package)) is None:
        pytest.skip(f"{package} is not installed")
    row = foreign_zoo.check(name)
    assert row["free_channels"] >= FREE.get(name, 0)
    assert row["pruned"].get("relative_error", 0) < foreign_zoo.TOLERANCE
    for part in (row["pruned"], row["calibrated"], row["aware"]):
        assert "crash" not in part
        assert "refused" not in part or len(part["refused"]) > 15
