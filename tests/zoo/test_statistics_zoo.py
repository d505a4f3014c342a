"""Statistics of published networks: gates of every group, which agree with the weights that read the channels."""

import keras
import numpy as np
import pytest
import zoo

from tfprune.graph import analyse
from tfprune.graph.groups import named
from tfprune.parts.channels import view_of
from tfprune.statistics import gather

FAST = ["MobileNetV3Small", "EfficientNetV2B0"]


def check(name: str) -> None:
    model = zoo.build(name)
    images = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    norm = lambda y, answers: keras.ops.sum(answers**2)  # noqa: E731
    found = gather(model, images, ["gate_gradient", "gate_gradient_squared", "gradient"], loss=norm)
    groups = {key: group for key, group in named(analyse(model).groups).items() if not group.frozen}
    assert groups
    for key, group in groups.items():
        gates = found.of_group(key)
        view = view_of(group, None, gates, found.of_variable)
        readers = view.with_role("consumer")
        expected = view.total((each, (each.rows * each.rows_of("gradient")).sum(1)) for each in readers)
        size = np.sqrt(gates["gate_gradient_squared"].max())
        assert size > 0, key
        np.testing.assert_allclose(gates["gate_gradient"], expected, rtol=1e-2, atol=5e-3 * size, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_gates_of_some_networks_are_what_readers_say(name):
    check(name)


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_gates_of_all_networks_are_what_readers_say(name):
    check(name)
