"""One report with everything in it."""

import keras
import pytest
from networks import images, randomize, residual
from pages import HISTORY, NAMES, SCHEDULES, Made, Reader, half_pruned

import tfprune


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    keras.utils.set_random_seed(0)
    x, y = images(24)
    model = randomize(residual())
    tfprune.export(model, folder / NAMES[2], quantize="int8", calibration=x)
    half = tfprune.prune_channels(half_pruned(), 0.5)
    export = tfprune.export(half, folder / "half.tflite", quantize="dynamic")
    models = {NAMES[0]: model, NAMES[1]: half, NAMES[2]: folder / NAMES[2]}
    page = tfprune.write_report(
        folder / "deep" / "report.html",
        models,
        data=(x, y),
        history=HISTORY,
        schedules=SCHEDULES,
        exports=[export],
    )
    return Made(page, models, (x, y), export)


@pytest.fixture(scope="session")
def reader(made):
    return Reader(made.page.read_text("utf-8"))
