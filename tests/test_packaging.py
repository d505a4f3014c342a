"""The wheel that users install, tried outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

USE = """
import keras, numpy as np, pathlib, tfprune
from tfprune.callbacks import FPGM
assert pathlib.Path(tfprune.__file__).is_relative_to({site!r}), tfprune.__file__
model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(8, 3, activation="relu"),
                          keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
model.fit(x, np.zeros((16, 2)), verbose=0, callbacks=[FPGM(0.5)])
small = tfprune.shrink(model)
report = tfprune.export(small, "model.tflite", quantize="int8", calibration=x)
print(small.layers[0].filters, report.float_operators)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    files = {name for name in names if ".dist-info/" not in name}
    code = {str(path.relative_to(ROOT)) for room in ("tfprune", "tfprune_cli") for path in (ROOT / room).rglob("*.py")}
    assert files == code | {"tfprune/py.typed", "tfprune/html_report/page.html"}


def test_callbacks_folder_is_a_link_into_the_package() -> None:
    assert (ROOT / "callbacks").resolve() == ROOT / "tfprune/callbacks"


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", USE.format(site=str(site))], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "4 ()"
    assert sorted(path.name for path in work.iterdir()) == ["model.tflite"]
