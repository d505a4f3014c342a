"""Small models, data and measurements that many tests share."""

import json
import subprocess
import sys

import keras
import numpy as np

L = keras.layers
BLOCK_TFPRUNE = """
import json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tfprune":
            raise ImportError("tfprune is blocked")
sys.meta_path.insert(0, Block())
import keras, numpy as np
x = np.load("x.npy")
for name in json.load(open("names.json")):
    np.save(name + ".out.npy", keras.models.load_model(name + ".keras").predict(x, verbose=0))
assert "tfprune" not in sys.modules
"""


def chain(filters=(4, 6), normalized=False):
    """Conv-BN-ReLU, Conv-ReLU, pooling, classes: nothing is tied. With another BN if all is to be `normalized`."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(filters[0], 3, padding="same", use_bias=False, name="first"),
            L.BatchNormalization(momentum=0.9, name="first_bn"),
            L.ReLU(),
            L.Conv2D(filters[1], 3, name="second"),
            *([L.BatchNormalization(momentum=0.9, name="second_bn")] if normalized else []),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes"),
        ]
    )


def residual(width=5, last=7, normalized=False):
    """Two convolutions tied by an addition, then one of its own (with a BN if all is `normalized`), then classes."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(inputs)
    skip = x = L.ReLU()(L.BatchNormalization(momentum=0.9, name="stem_bn")(x))
    x = L.Conv2D(width, 3, padding="same", name="branch")(x)
    x = L.BatchNormalization(momentum=0.9, name="branch_bn")(x)
    x = L.ReLU()(L.Add()([x, skip]))
    x = L.Conv2D(last, 1, name="head")(x)
    x = L.ReLU()(L.BatchNormalization(momentum=0.9, name="head_bn")(x) if normalized else x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x), name="residual")


def preactivation(width=6, inner=4, blocks=2):
    """A residual network whose BatchNormalization and ReLU stand before the convolutions, in the branches."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(inputs)
    for index in range(blocks):
        y = L.ReLU()(L.BatchNormalization(momentum=0.9, name=f"in{index}_bn")(x))
        y = L.Conv2D(inner, 3, padding="same", use_bias=False, name=f"first{index}")(y)
        y = L.ReLU()(L.BatchNormalization(momentum=0.9, name=f"mid{index}_bn")(y))
        x = L.Add()([x, L.Conv2D(width, 3, padding="same", use_bias=False, name=f"second{index}")(y)])
    x = L.ReLU()(L.BatchNormalization(momentum=0.9, name="last_bn")(x))
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x), name="preactivation")


def densely_connected(growth=3, layers=2):
    """A dense block: every layer reads the concatenation of all before it through a BatchNormalization of its own."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(inputs)
    for index in range(layers):
        y = L.ReLU()(L.BatchNormalization(momentum=0.9, name=f"in{index}_bn")(x))
        y = L.Conv2D(growth, 3, padding="same", use_bias=False, name=f"grow{index}")(y)
        x = L.Concatenate()([x, y])
    x = L.ReLU()(L.BatchNormalization(momentum=0.9, name="last_bn")(x))
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x), name="densely_connected")


def of_images(network):
    """A model of images of 8 x 8 pixels, from a function of its input."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    return keras.Model(inputs, network(inputs))


def dense(units=(4, 3)):
    """Two Dense layers that read a vector of two numbers."""
    return keras.Sequential(
        [keras.Input((2,)), L.Dense(units[0], "relu", name="hidden"), L.Dense(units[1], name="classes")]
    )


def open_chain(filters=(4, 6)):
    """A chain with random weights whose first ReLU is open behind a zero filter, so that it can grow back."""
    model = randomize(chain(filters))
    model.get_layer("first_bn").beta.assign(np.full(filters[0], 0.5))
    return model


def randomize(model, seed=0):
    """Give every weight a value that is not zero, variances a positive one; return the model."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        value = random.uniform(0.3, 1.0, weight.shape)
        if "variance" not in weight.path:
            value *= random.choice([-1.0, 1.0], weight.shape)
        if len(weight.shape) > 1:
            value /= np.sqrt(np.prod(weight.shape[:-1]))
        weight.assign(value)
    return model


def images(count=32, seed=0, shape=(8, 8, 2), classes=3):
    """Random images with labels that depend on them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, *shape)).astype("float32")
    return x, np.argsort(x.reshape(count, -1)[:, :classes], axis=1)[:, 0]


def compiled(model, optimizer="sgd", **options):
    """Compile for `images`, with all variables of the optimizer and the metrics in place; return the model.

    Whatever makes a variable while TensorFlow traces the training step has the step traced twice, and tracing is most
    of what a short fit costs.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, np.zeros(1, int), np.zeros((1, 3), "float32"))
    model.reset_metrics()
    return model


def weights_of(model):
    """Copies of all weights."""
    return [weight.numpy().copy() for weight in model.weights]


def same(first, second):
    """Whether two lists of arrays are equal bit for bit."""
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def outputs(model, inputs):
    """The outputs in inference mode, as a flat list of arrays."""
    return [np.asarray(out) for out in keras.tree.flatten(model(inputs, training=False))]


def relative_difference(first, second):
    """The largest difference between two lists of arrays, relative to the largest value of the first."""
    assert [a.shape for a in first] == [b.shape for b in second]
    assert all(np.isfinite(a).all() for a in first)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(first, second, strict=True))


def zero_filters(layer):
    """The positions of the filters whose kernel is exactly zero."""
    kernel = layer.kernel.numpy()
    return np.flatnonzero((kernel == 0).reshape(-1, kernel.shape[-1]).all(axis=0)).tolist()


def kill(layer, positions, *carriers):
    """Zero filters of a layer, and the biases, gammas and betas that carry them."""
    for variable in layer.weights:
        value = variable.numpy()
        value[..., positions] = 0.0
        variable.assign(value)
    for carrier in carriers:
        for variable in (carrier.gamma, carrier.beta):
            value = variable.numpy()
            value[positions] = 0.0
            variable.assign(value)


def outputs_without_tfprune(folder, names, x):
    """What saved models of one output compute in a process that cannot import tfprune, by their names."""
    np.save(folder / "x.npy", x)
    (folder / "names.json").write_text(json.dumps(list(names)))
    subprocess.run([sys.executable, "-c", BLOCK_TFPRUNE], cwd=folder, check=True, capture_output=True)
    return {name: [np.load(folder / f"{name}.out.npy")] for name in names}
