"""What the README tells people to run, runs."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune_cli.command import MODULES

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_example_runs_as_printed(tmp_path, monkeypatch, capsys, eager_steps):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(24, 8, 8, 1)).astype("float32")
    names = {"model": model, "x": x, "y": np.arange(24) % 3}
    exec(re.search(r"```python\n(.*?)```", README, re.S)[1], names)
    assert names["small"].layers[0].filters == 4
    assert (tmp_path / "model.tflite").exists()
    assert "model.tflite" in capsys.readouterr().out


def test_sparsity_example_runs_as_printed(capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(10, "relu"), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    names = {"tfprune": tfprune, "model": model, "x": np.ones((8, 4)), "y": np.ones((8, 2))}
    exec(re.findall(r"```python\n(.*?)```", README, re.S)[1], names)
    assert [np.count_nonzero(layer.kernel) for layer in model.layers] == [4, 2]
    assert "epoch 19" in capsys.readouterr().out


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(__file__).parent.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["quickstart command", "test command"])
def test_command_is_where_the_checks_look_for_it(name):
    command = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README, re.S)[1]
    assert command.startswith("pip install ")
    assert "\n" not in command


def test_recipes_and_commands_that_it_names_exist():
    root = Path(__file__).parent.parent
    named = set(re.findall(r"recipes/(\w+\.py)", README))
    scripts = {path.name for path in (root / "recipes").glob("*.py")} - {
        "example_backbones.py",
        "example_data.py",
        "example_tools.py",
    }
    assert named == scripts
    assert re.findall(r"python (benchmarks/\w+\.py)", README)
    assert [path for path in re.findall(r"python (\w+/\w+\.py)", README) if not (root / path).exists()] == []
    (commands,) = re.findall(r"^\| (`tfprune .*?) \|", README, re.M)
    assert re.findall(r"\w+", commands.replace("tfprune", "")) == list(MODULES)
