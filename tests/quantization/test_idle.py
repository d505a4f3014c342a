"""Layers that compute nothing at inference are found whatever their class, and leave nothing in a file."""

import keras
import numpy as np
import pytest
from keras import ops

import tfprune
from tfprune.graph import walk
from tfprune.quantization.idle import does_nothing, only_picks

L = keras.layers
SIZE = (12, 12, 3)


class DropPath(L.Layer):
    def call(self, x, training=None):
        return x * (1.0 + ops.cast(keras.random.uniform(()) > 0.5, "float32")) if training else x


class Around(L.Layer):
    """It does not ask whether it trains; the layers inside it learn it all the same."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [L.RandomFlip(), L.Dropout(0.3)]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


IDLE = {
    **dict.fromkeys(("RandomFlip", "RandomErasing", "RandomGrayscale", "RandomInvert", "RandomPerspective"), ()),
    **dict.fromkeys(("RandomElasticTransform", "RandomGaussianBlur", "RandomColorJitter", "RandomShear"), ()),
    **dict.fromkeys(("MixUp", "CutMix", "AugMix", "RandAugment", "Identity", "ActivityRegularization"), ()),
    **dict.fromkeys(("RandomRotation", "RandomZoom", "RandomContrast", "RandomBrightness", "RandomHue"), (0.1,)),
    **dict.fromkeys(("RandomSaturation", "RandomSharpness", "RandomColorDegeneration", "Dropout"), (0.1,)),
    **dict.fromkeys(("GaussianDropout", "GaussianNoise", "AlphaDropout", "SpatialDropout2D"), (0.1,)),
    "RandomPosterization": (4,),
    "RandomTranslation": (0.1, 0.1),
    "RandomCrop": SIZE[:2],
}
LAYERS = {
    **{name: lambda name=name, args=args: getattr(L, name)(*args) for name, args in IDLE.items()},
    "pipeline": lambda: L.Pipeline([L.RandomFlip(), L.RandomContrast(0.1)]),
    "own class": DropPath,
    "own class around layers": Around,
}


def only_call(layer):
    (node,) = walk(keras.Sequential([keras.Input(SIZE), layer]))
    return node


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_do_nothing_at_inference(name):
    assert does_nothing(only_call(LAYERS[name]()))


@pytest.mark.parametrize("layer", [L.LayerNormalization(), L.ELU(), L.AutoContrast(), L.CenterCrop(8, 8)])
def test_layers_that_do_something(layer):
    assert not does_nothing(only_call(layer))


@pytest.mark.parametrize(("layer", "picks"), [(L.CenterCrop(8, 8), True), (L.Resizing(8, 8), False)])
def test_crops_only_pick(layer, picks):
    assert only_picks(only_call(layer)) is picks


def _network(*augmentations):
    return keras.Sequential(
        [keras.Input(SIZE), *augmentations, L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(3)]
    )


def test_nothing_of_them_is_in_the_file(tmp_path):
    inside = keras.Sequential([L.RandomFlip(), L.Pipeline([L.RandomZoom(0.1), L.RandomContrast(0.1)])])
    found = []
    for name, augmentations in {"with": (inside, DropPath(), L.RandomTranslation(0.1, 0.1)), "without": ()}.items():
        keras.utils.set_random_seed(0)
        aware = tfprune.quantize_aware(_network(*augmentations), exclude=lambda layer: isinstance(layer, DropPath))
        aware(np.random.default_rng(0).normal(size=(8, *SIZE)).astype("float32"), training=True)
        report = tfprune.export(aware, tmp_path / f"{name}.tflite", quantize="int8")
        assert (report.io_dtype, report.float_operators) == ("int8", ())
        found.append(report.operators)
    assert found[0] == found[1]
