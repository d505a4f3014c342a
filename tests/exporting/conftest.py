import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).random((60, 8, 8, 1)).astype(np.float32)


def build_net(seed):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture(scope="session")
def net():
    return build_net(seed=1)


@pytest.fixture
def other_net():
    """The same architecture with other weights."""
    return build_net(seed=2)


@pytest.fixture(scope="session")
def two_inputs():
    """Two inputs given as a dict, and two outputs given as a dict; the names are against the alphabet."""
    keras.utils.set_random_seed(3)
    image, extra = keras.Input((4, 4, 1), name="z_image"), keras.Input((3,), name="extra")
    merged = keras.layers.Concatenate()([keras.layers.Flatten()(image), extra])
    outputs = {"wide": keras.layers.Dense(5)(merged), "narrow": keras.layers.Dense(2)(merged)}
    return keras.Model({"z_image": image, "extra": extra}, outputs)
