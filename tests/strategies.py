"""Hypothesis strategies: arbitrary functional models, and channels to remove from them."""

import keras
import numpy as np
from hypothesis import strategies as st
from networks import randomize

L = keras.layers
ACTIVATIONS = [None, "relu", "tanh", "elu", "sigmoid"]  # sigmoid(0) is not 0: it freezes what it touches


class _Builder:
    """Grows a model step by step; every choice is drawn."""

    def __init__(self, draw):
        self.draw = draw
        self.inputs = keras.Input((8, 8, draw(st.integers(1, 3))))
        self.maps = [self.inputs]
        self.convolutions = []
        self.nested = []

    def pick(self, options):
        return self.draw(st.sampled_from(options))

    def channels(self):
        return self.draw(st.integers(1, 4))

    def convolution(self, strides=True):
        return L.Conv2D(
            self.channels(),
            self.pick([1, 2, 3]),
            strides=self.pick([1, 2]) if strides else 1,
            padding=self.pick(["same", "valid"]) if strides else "same",
            use_bias=self.draw(st.booleans()),
            activation=self.pick(ACTIVATIONS),
        )

    def normalization(self):
        return L.BatchNormalization(scale=self.draw(st.booleans()), center=self.draw(st.booleans()))

    def step(self):
        """Add one layer, or a few, that read tensors made earlier."""
        kinds = ["convolve", "convolve", "depthwise", "normalize", "elementwise", "pool", "merge", "merge", "concat"]
        x = self.maps[-1] if self.draw(st.booleans()) else self.pick(self.maps)
        self.maps.append(getattr(self, self.pick([*kinds, "repeat", "nest"]))(x))

    def convolve(self, x):
        layer = self.convolution() if min(x.shape[1:3]) >= 3 else self.convolution(strides=False)
        y = layer(x)
        self.convolutions.append((layer, x.shape[-1]))
        return y

    def depthwise(self, x):
        layer = L.DepthwiseConv2D(
            self.pick([1, 3]),
            padding="same",
            depth_multiplier=self.pick([1, 2]) if x.shape[-1] <= 4 else 1,
            use_bias=self.draw(st.booleans()),
            activation=self.pick([None, "relu"]),
        )
        return layer(x)

    def normalize(self, x):
        return self.normalization()(x)

    def elementwise(self, x):
        layers = [L.ReLU(), L.ReLU(max_value=6.0), L.LeakyReLU(), L.ELU(), L.Dropout(0.5), L.Activation("silu")]
        return layers[self.draw(st.integers(0, len(layers) - 1))](x)

    def pool(self, x):
        layer = self.pick([L.MaxPooling2D, L.AveragePooling2D])
        small = layer(2, strides=self.pick([1, 2]), padding="same")(x)
        return self.pick([small, L.ZeroPadding2D(1)(x), L.UpSampling2D(2)(x)]) if x.shape[1] <= 8 else small

    def merge(self, x):
        candidates = [y for y in self.maps if y.shape[1:3] == x.shape[1:3]]
        other = self.pick(candidates)
        if other.shape[-1] != x.shape[-1]:
            other = L.Conv2D(x.shape[-1], 1, use_bias=self.draw(st.booleans()))(other)
        layer = self.pick([L.Add, L.Add, L.Multiply, L.Average, L.Maximum, L.Subtract])
        return layer()([x, other])

    def concat(self, x):
        candidates = [y for y in self.maps if y.shape[1:3] == x.shape[1:3]]
        joined = L.Concatenate()([x, self.pick(candidates)])
        return joined if joined.shape[-1] <= 8 else L.Conv2D(self.channels(), 1)(joined)

    def repeat(self, x):
        """Call a layer that was called before."""
        fitting = [layer for layer, width in self.convolutions if width == x.shape[-1] and layer.padding == "same"]
        return self.pick(fitting)(x) if fitting else self.convolve(x)

    def nest(self, x):
        """Call a nested model; sometimes one that was called before."""
        fitting = [model for model in self.nested if model.input_shape[-1] == x.shape[-1]]
        if fitting and self.draw(st.booleans()):
            return self.pick(fitting)(x)
        inputs = keras.Input((None, None, x.shape[-1]))
        if self.draw(st.booleans()):
            layers = [inputs, self.convolution(strides=False), self.normalization(), L.ReLU()]
            model = keras.Sequential(layers)
        else:
            y = self.convolution(strides=False)(inputs)
            model = keras.Model(inputs, L.Add()([y, L.Conv2D(y.shape[-1], 1)(inputs)]))
        self.nested.append(model)
        return model(x)

    def head(self):
        x = self.maps[-1]
        x = L.Flatten()(x) if self.draw(st.booleans()) else L.GlobalAveragePooling2D()(x)
        x = L.Dense(self.channels(), self.pick(["relu", None]))(x)
        ends = [L.Dense(2)(x)]
        if self.draw(st.integers(0, 4)) == 0:
            ends.append(self.pick(self.maps[1:]))
        return keras.Model(self.inputs, ends)


def draw_model(data, max_steps=7):
    """Draw a functional model from the layers that tfprune knows, with random weights.

    A function of `st.data()` and not a strategy: Keras uses `random`, which Hypothesis forbids inside strategies.
    """
    keras.utils.clear_session(free_memory=False)
    builder = _Builder(data.draw)
    for _ in range(data.draw(st.integers(1, max_steps))):
        builder.step()
    return randomize(builder.head(), data.draw(st.integers(0, 2**16)))


def choices(groups):
    """For each free group, which channels stay: at least one."""
    kept = [
        st.lists(st.booleans(), min_size=group.size, max_size=group.size).filter(any).map(lambda keep: np.array(keep))
        for group in groups.free
    ]
    return st.tuples(*kept).map(lambda keeps: list(zip(groups.free, keeps, strict=True)))
