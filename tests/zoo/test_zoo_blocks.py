"""Published networks without some of their blocks: the same as with the ends of these blocks at zero."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.criteria import BlockCriterion


class Every(BlockCriterion):
    """All blocks are worth the same, so the last go first; it needs no data."""

    def score(self, view):
        return 0.0


BUILDERS = {
    "ResNet50": (keras.applications.ResNet50, 16, 12),
    "MobileNetV2": (keras.applications.MobileNetV2, 10, 10),
    "ConvNeXtTiny": (keras.applications.ConvNeXtTiny, 18, 18),
}


@pytest.mark.zoo
@pytest.mark.parametrize("name", BUILDERS)
def test_blocks_go_exactly(name):
    build, num_blocks, num_free = BUILDERS[name]
    model = build(weights=None, input_shape=(64, 64, 3), classes=10)
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype("float32")
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, images)
    blocks = tfprune.residual_blocks(model).blocks
    assert (len(blocks), sum(not block.stays for block in blocks)) == (num_blocks, num_free)
    assert all("projection" in block.stays for block in blocks if block.stays)
    small = tfprune.remove_layers(model, num_free // 2, criterion=Every())
    left = {block.name for block in tfprune.residual_blocks(small).blocks}
    for block in blocks:
        if block.name not in left:
            for weight in model.get_layer(block.layers[-1]).trainable_weights:  # gamma and beta, or a layer scale
                weight.assign(np.zeros(weight.shape))
    assert small.count_params() == model.count_params() - sum(
        block.num_parameters for block in blocks if block.name not in left
    )
    expected, found = model.predict(images, verbose=0), small.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.zoo
def test_influence_of_published_blocks():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=10)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype("float32")
    tfprune.recalibrate(model, images)
    names = [block.name for block in tfprune.residual_blocks(model).blocks]
    adds = [model.get_layer(name) for name in names]
    tensors = keras.Model(model.inputs, [[add.input[0], add.output] for add in adds])
    for block, (before, after) in zip(
        tfprune.residual_blocks(model, data=images).blocks, tensors.predict(images, verbose=0), strict=True
    ):
        before, after = before.astype(np.float64), after.astype(np.float64)
        cosine = (before * after).sum(-1) / np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
        assert block.score == pytest.approx(1 - cosine.mean(), abs=1e-5)
