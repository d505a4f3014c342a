"""Every recipe works in small, writes what it says, and refuses what it cannot do before it trains."""

import argparse
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path

import example_tools as tools
import keras
import numpy as np
import pytest

import tfprune
from tfprune.tflite.model import TFLiteModel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text()
NAMES = sorted(
    {path.stem for path in (ROOT / "recipes").glob("*.py")}
    - {"example_backbones", "example_data", "example_tools", "unpack_weights"}
)
ON_DATA = [name for name in NAMES if name != "shrink_my_model"]
NO_SUCH = ["--dataset", "missing.npz"]


class ParserRead(Exception):  # noqa: N818
    """Carries a recipe's parser out of its main."""


@pytest.fixture
def parser_of(monkeypatch):
    """Return the parser of a recipe."""

    def find(name):
        def stop(parser, *args, **kwargs):
            raise ParserRead(parser)

        recipe = importlib.import_module(name)
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            with pytest.raises(ParserRead) as caught:
                recipe.main([])
        return caught.value.args[0]

    return find


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name, parser_of):
    parser = parser_of(name)
    actions = {action.option_strings[0] if action.option_strings else action.dest: action for action in parser._actions}
    expected = {"--seed", "--out"} | ({"model"} if name == "shrink_my_model" else {"--dataset", "--epochs"})
    assert expected <= set(actions)
    assert all(action.help for action in actions.values())
    assert parser.description
    printed = parser.format_help()
    assert all(option in printed for option in actions if option.startswith("-"))


@pytest.mark.parametrize("name", NAMES)
def test_stays_short_enough_to_read(name):
    assert len((ROOT / "recipes" / f"{name}.py").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", ON_DATA)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--dataset", "nothing"], "There is no data set 'nothing'. Choose "),
        (NO_SUCH, "There is no file at 'missing.npz'"),
    ],
)
def test_bad_arguments_end_with_a_clear_message(name, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(name).main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option", "value", "limits"),
    [
        ("image_classification", "--image-size", "8", "from 32 to 512"),
        ("image_classification", "--ratio", "1", "a fraction from 0.05 to 0.95"),
        ("keyword_spotting", "--ratio", "nan", "a fraction from 0.05 to 0.95"),
        ("wearable_activity", "--macs", "2", "a fraction from 0.05 to 0.95"),
        ("sparse_training", "--sparsity", "0.2", "a fraction from 0.6 to 0.99"),
        ("slimming", "--strength", "-1", "a fraction from 0.0 to 1.0"),
        ("depth_pruning", "--blocks", "0", "from 1 to 20"),
        ("distillation", "--macs", "1", "a fraction from 0.05 to 0.95"),
        ("distillation", "--labels", "0", "a fraction from 0.001 to 1.0"),
        ("lottery_ticket", "--rounds", "0", "from 1 to 30"),
        ("lottery_ticket", "--fraction", "1", "a fraction from 0.05 to 0.9"),
        ("lottery_ticket", "--learning-rate", "2", "a fraction from 1e-05 to 0.1"),
        ("shrink_my_model", "--ratio", "1", "a fraction from 0.0 to 0.95"),
        ("shrink_my_model", "--macs", "0", "a fraction from 0.05 to 0.95"),
    ],
)
def test_numbers_have_limits(name, option, value, limits, tmp_path, monkeypatch, capsys, parser_of):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(name).main([*(["m.keras"] if name == "shrink_my_model" else []), option, value])
    assert f"{option} must be {limits}. Received: " in capsys.readouterr().err
    assert limits.removeprefix("a fraction from ").removeprefix("from ") in " ".join(
        parser_of(name).format_help().split()
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes that differ in size, as images, as features of sounds and as windows of sensors."""
    folder = tmp_path_factory.mktemp("data")
    y = np.repeat([0, 1], 40)
    x = np.random.default_rng(0).integers(0, 100, (80, 12, 12)) + 150 * y[:, None, None]
    np.savez(folder / "images.npz", x=x.astype("uint8"), y=y)
    np.savez(folder / "features.npz", x=x.astype("float32"), y=y)
    np.savez(folder / "windows.npz", x=x.astype("float32"), y=y, groups=np.arange(80) % 4)
    return folder


@pytest.fixture(scope="module")
def saved(data):
    """A model with batch normalization, and inputs for it."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    model.save(data / "model.keras")
    with np.load(data / "images.npz") as file:
        np.savez(data / "calibration.npz", x=(file["x"][..., None] / 255).astype("float32"))
    return data / "model.keras"


def run(monkeypatch, name, arguments, out):
    """Run a recipe in steps that are not compiled, as one step per epoch would be slower so; return what it made."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(keras.Model, "run_eagerly", property(lambda model: True, lambda model, value: None))
    with tools.console.capture() as capture:
        importlib.import_module(name).main([*arguments, "--out", str(out)])
    report = json.loads((out / "report.json").read_text())
    check_files(report, out, capture.get())
    return report


def check_files(report, out, printed):
    assert report["seconds"] > 0
    assert f"Models and report.json are in {out}" in printed.replace("\n", "")
    table = printed[printed.rindex("first") :]
    for row in report["files"]:
        path = Path(row["path"])
        assert row["file_bytes"] == path.stat().st_size
        assert row["median_ms"] > 0
        assert path.stem in table
    assert {path.name for path in out.glob("*.tflite")} == {Path(row["path"]).name for row in report["files"]}
    assert "…" not in table
    assert max(map(len, table.splitlines()[:12])) <= 80
    for path in out.glob("*.keras"):
        assert keras.models.load_model(path, compile=False).count_params() > 0


def by_name(report):
    return {Path(row["path"]).stem: row for row in report["files"]}


def test_shrink_my_model_without_data(tmp_path, monkeypatch, saved):
    report = run(monkeypatch, "shrink_my_model", [str(saved), "--ratio", "0.5"], tmp_path / "out")
    files = by_name(report)
    assert set(files) == {"original_float", "pruned_dynamic"}
    assert keras.models.load_model(tmp_path / "out" / "pruned.keras").layers[0].filters == 4
    assert "accuracy" not in files["pruned_dynamic"]
    assert "agreement" not in files["pruned_dynamic"]


def test_shrink_my_model_with_data_makes_int8_and_measures_normalization_anew(tmp_path, monkeypatch, saved):
    calibration = ["--calibration", str(saved.with_name("calibration.npz"))]
    out = tmp_path / "out"
    report = run(monkeypatch, "shrink_my_model", [str(saved), "--macs", "0.5", *calibration], out)
    files = by_name(report)
    assert set(files) == {"original_float", "pruned_int8"}
    assert files["original_float"]["agreement"] == 1
    assert files["pruned_int8"]["macs"] <= 0.5 * files["original_float"]["macs"]
    small = keras.models.load_model(out / "pruned.keras")
    unmeasured = tfprune.prune_channels(keras.models.load_model(saved), budget=tfprune.Budget(macs=0.5))
    np.testing.assert_array_equal(small.layers[0].kernel, unmeasured.layers[0].kernel)
    assert not np.allclose(small.layers[1].moving_variance, unmeasured.layers[1].moving_variance)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "There is no file"), (b"", "is empty"), (b"\x89PNG\r\n", "is no .keras file")],
)
def test_shrink_my_model_refuses_what_is_no_model(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("model.keras").write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("shrink_my_model").main(["model.keras"])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_shrink_my_model_loads_in_safe_mode(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(2)])
    model.save("model.keras")
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("shrink_my_model").main(["model.keras"])
    assert "'model.keras' holds Python code, such as a Lambda layer's" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "int8"], "--quantize int8 measures ranges on data: give --calibration DATA.npz."),
        (["--ratio", "0.5", "--macs", "0.5"], "not allowed with argument"),
        (["--calibration", "missing.npz"], "There is no file at 'missing.npz'"),
        (
            ["--calibration", "labels.npz"],
            "'labels.npz' has the arrays ['y']; the model takes '",
        ),
        (["--calibration", "broken.npz"], "'broken.npz' is damaged, or no .npz file"),
    ],
)
def test_shrink_my_model_refuses_bad_arguments(arguments, message, tmp_path, monkeypatch, saved, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("labels.npz", y=np.zeros(3))
    Path("broken.npz").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("shrink_my_model").main([str(saved), *arguments])
    assert message in capsys.readouterr().err


def test_shrink_my_model_overwrites_only_when_told(tmp_path, saved, capsys):
    (tmp_path / "pruned.keras").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("shrink_my_model").main([str(saved), "--out", str(tmp_path)])
    assert "already. Give another --out, or --overwrite." in capsys.readouterr().err
    assert (tmp_path / "pruned.keras").read_text() == "mine"


@pytest.mark.slow
def test_wearable_activity(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "windows.npz"), "--epochs", "1", "--macs", "0.5"]
    report = run(monkeypatch, "wearable_activity", arguments, tmp_path / "out")
    files = by_name(report)
    assert files["pruned_float"]["macs"] <= 0.5 * files["dense_float"]["macs"]
    assert files["pruned_int8"]["file_bytes"] < files["pruned_float"]["file_bytes"]
    assert len(report["scaling"]["mean"]) == 12


@pytest.mark.slow
def test_keyword_spotting(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "features.npz"), "--epochs", "1", "--ratio", "0.75"]
    files = by_name(run(monkeypatch, "keyword_spotting", arguments, tmp_path / "out"))
    assert files["pruned_float"]["parameters"] < 0.2 * files["dense_float"]["parameters"]
    assert files["pruned_int8"]["file_bytes"] < files["pruned_float"]["file_bytes"]


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) for name in ("rigl", "granet", "set", "static")]
)
def test_sparse_training(method, tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "10", "--method", method, "--sparsity", "0.8"]
    report = run(monkeypatch, "sparse_training", arguments, tmp_path / "out")
    files = by_name(report)
    assert files["sparse_float"]["zeros"] == pytest.approx(0.8, abs=0.02)
    assert files["dense_float"]["zeros"] < 0.02
    assert files["sparse_stored"]["file_bytes"] < files["sparse_float"]["file_bytes"]
    assert files["sparse_float"]["gzip_bytes"] < 0.5 * files["dense_float"]["gzip_bytes"]
    assert len(report["density"]["density/logits"]) == 20


@pytest.mark.slow
def test_slimming(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "1", "--ratio", "0.5"]
    report = run(monkeypatch, "slimming", arguments, tmp_path / "out")
    before, after = zip(*report["filters"].values(), strict=True)
    assert (sum(before), sum(after)) == (448, 224)
    small = keras.models.load_model(tmp_path / "out" / "pruned.keras")
    assert small.get_layer("conv3_2").filters == report["filters"]["conv3_2"][1]


@pytest.mark.slow
def test_depth_pruning(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "12", "--blocks", "1", "--strength", "1"]
    with pytest.warns(UserWarning, match="all 3 blocks"):
        report = run(monkeypatch, "depth_pruning", arguments, tmp_path / "out")
    assert report["blocks_before"] == ["stage1_block1", "stage2_block1", "stage3_block1"]
    assert report["blocks_after"] == []
    files = by_name(report)
    assert files["pruned_float"]["macs"] < 0.5 * files["dense_float"]["macs"]


@pytest.mark.slow
def test_quantization_aware(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "1"]
    files = by_name(run(monkeypatch, "quantization_aware", arguments, tmp_path / "out"))
    assert files["float"]["agreement"] == 1
    for name in ("calibrated_int8", "aware_int8"):
        assert files[name]["file_bytes"] < files["float"]["file_bytes"]
        assert 0 <= files[name]["agreement"] <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* numbers to fit for each output")  # from 64 images
def test_distillation(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "20", "--macs", "0.4", "--labels", "0.25"]
    report = run(monkeypatch, "distillation", arguments, tmp_path / "out")
    files = by_name(report)
    assert files["pruned_float"]["macs"] <= 0.4 * files["dense_float"]["macs"]
    assert files["pruned_int8"]["file_bytes"] < files["pruned_float"]["file_bytes"]
    networks = {name: (labels, accuracy) for name, labels, accuracy in report["networks"]}
    assert [labels for labels, _ in networks.values()] == [64, 0, 64, 64, 16, 16, 0]
    # The file is the network that has seen no label, and all ways begin with the same weights and end with others.
    assert networks["pruned, then teacher"][1] == pytest.approx(files["pruned_float"]["accuracy"])
    saved = {path.stem: keras.models.load_model(path, compile=False) for path in (tmp_path / "out").glob("*.keras")}
    ways = [model for name, model in saved.items() if name not in ("dense", "pruned")]
    assert len(ways) == 5
    assert len({model.count_params() for model in (*ways, saved["pruned"])}) == 1
    assert len({np.asarray(model.layers[-1].kernel).tobytes() for model in (*ways, saved["pruned"])}) == 6


def test_distillation_keeps_as_many_labels_of_each_class():
    import distillation

    y = np.repeat([0, 1, 2], [40, 20, 3]).astype("int32")
    few = distillation.some_labels(y, 0.1, seed=0)
    kept = few != distillation.NO_LABEL
    np.testing.assert_array_equal(np.bincount(few[kept]), [4, 2, 1])
    np.testing.assert_array_equal(few[kept], y[kept])
    np.testing.assert_array_equal(distillation.some_labels(y, 0.1, seed=0), few)
    assert not np.array_equal(distillation.some_labels(y, 0.1, seed=1), few)


class Recorder:
    """Stands for a model, and keeps what it is trained on."""

    def compile(self, *args, **kwargs):
        pass

    def fit(self, x, y, *args, **kwargs):
        self.x, self.y = x, y


def test_distillation_repeats_labelled_images_where_nobody_teaches(monkeypatch):
    import distillation

    x, y = np.arange(6.0)[:, None], np.array([-1, 2, -1, -1, 5, -1])
    data = distillation.LabelledData("", x, y, x, y)
    alone, taught, unlabelled = Recorder(), Recorder(), Recorder()
    monkeypatch.setattr(tfprune, "distill", lambda small, teacher, **kwargs: small)
    distillation.fine_tune(alone, data, y, None, epochs=1)
    np.testing.assert_array_equal(alone.x[:, 0], [1, 4, 1, 4, 1, 4])
    np.testing.assert_array_equal(alone.y, [2, 5, 2, 5, 2, 5])
    distillation.fine_tune(taught, data, y, "teacher", epochs=1)
    assert taught.x is x
    assert taught.y is y
    distillation.fine_tune(unlabelled, data, None, "teacher", epochs=1)
    assert unlabelled.y is None


@pytest.mark.slow
def test_lottery_ticket(tmp_path, monkeypatch, data):
    arguments = ["--dataset", str(data / "images.npz"), "--epochs", "2", "--rounds", "2", "--fraction", "0.8"]
    report = run(monkeypatch, "lottery_ticket", arguments, tmp_path / "out")
    curves = report["accuracy_by_density"]
    assert [len(points) for points in curves.values()] == [3, 3, 3]
    ticket = tfprune.Ticket.load(tmp_path / "out" / "ticket.npz")
    trained = keras.models.load_model(tmp_path / "out" / "ticket.keras")
    hidden, logits = trained.get_layer("hidden_300"), trained.get_layer("logits")
    for layer, fraction in ((hidden, 0.8), (logits, 0.4)):
        left = np.size(layer.kernel)
        for _ in range(2):
            left -= int(fraction * left)
        assert np.count_nonzero(layer.kernel) <= left
        (mask,) = (mask for path, mask in ticket.masks.items() if layer.name in path)
        assert mask.sum() == left
        assert not np.any(np.asarray(layer.kernel)[~mask])
    assert [points[-1][0] for points in curves.values()] == pytest.approx([ticket.density] * 3)
    files = by_name(report)
    assert files["ticket_sparse"]["file_bytes"] < 0.5 * files["dense_float"]["file_bytes"]
    assert files["ticket_sparse"]["accuracy"] == pytest.approx(curves["initial weights"][-1][1], abs=0.13)
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 1000


def test_lottery_ticket_compares_means_where_few_weights_are_left():
    import lottery_ticket

    curves = {
        "initial weights": [(1.0, 0.9), (0.05, 0.8), (0.01, 0.6)],
        "new weights": [(1.0, 0.9), (0.05, 0.5), (0.01, 0.3)],
    }
    with tools.console.capture() as capture:
        lottery_ticket.compare(curves)
    rows = [line.split() for line in capture.get().splitlines()]
    assert ["5.0%", "80.0%", "50.0%"] in rows
    assert ["mean", "below", "10%", "70.0%", "40.0%"] in rows
    with tools.console.capture() as capture:
        lottery_ticket.compare({name: points[:1] for name, points in curves.items()})
    assert "mean" not in capture.get()


def test_lottery_ticket_needs_a_first_epoch_to_go_back_to(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("lottery_ticket").main(["--dataset", str(data / "images.npz"), "--epochs", "1"])
    assert "--epochs must be at least 2 here" in capsys.readouterr().err


def test_chance_is_two_standard_errors():
    with tools.console.capture() as capture:
        tools.tell_chance(0.8, 400)
    assert "400 test samples may be off by 4.0 points" in capture.get()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        for index in range(10):
            pixels = random.integers(0, 120, (40, 36, 3)) + 120 * number
            keras.utils.save_img(folder / name / f"{index}.png", pixels, scale=False)
    return folder


def tiny_backbone(include_top, weights, input_shape, pooling):
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=4, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    if weights:
        model.load_weights(weights)
    return model


@pytest.mark.slow
def test_image_classification_of_a_folder_with_weights(tmp_path, monkeypatch, photos):
    monkeypatch.setattr(keras.applications, "MobileNetV2", tiny_backbone)
    monkeypatch.setattr(tiny_backbone, "__module__", "keras.src.applications.mobilenet_v2")
    weights = tmp_path / "tiny.weights.h5"
    tiny_backbone(False, None, (32, 32, 3), "avg").save_weights(weights)
    fits = []
    monkeypatch.setattr(tools, "fit", spy(tools.fit, fits))
    arguments = ["--dataset", str(photos), "--epochs", "1", "--image-size", "32", "--weights", str(weights)]
    report = run(monkeypatch, "image_classification", arguments, tmp_path / "out")
    assert report["classes"] == ["cat", "dog"]
    assert fits == [2, 6, 6, 6]  # the head alone, then kernel, bias, gamma and beta too
    files = by_name(report)
    assert files["pruned_float"]["parameters"] < files["dense_float"]["parameters"]
    # Bytes go in as they are, and the classes have names.
    int8 = TFLiteModel(files["pruned_int8"]["path"])
    assert (int8.inputs[0].dtype, int8.inputs[0].scale, int8.inputs[0].zero_point) == (np.uint8, 1.0, 0)
    assert b"cat\ndog\n" in int8.content


def test_every_network_of_keras_applications_comes_with_its_preprocessing():
    import image_classification

    families = image_classification.backbones()
    assert set(families) == {name for name, made in vars(keras.applications).items() if inspect.isfunction(made)}
    assert {"MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "ConvNeXtTiny", "NASNetMobile"} <= set(families)
    assert len(families) >= 40
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3)).astype("float32")
    for backbone in families.values():
        scaled = image_classification.scaling_layer(backbone.preprocess_input)(pixels)
        np.testing.assert_allclose(scaled, backbone.preprocess_input(pixels.copy()), atol=1e-4)
    pixels = np.full((1, 1, 1, 3), 255.0)
    np.testing.assert_allclose(families["MobileNetV2"].preprocess_input(pixels.copy()), 1)
    np.testing.assert_allclose(families["EfficientNetB0"].preprocess_input(pixels.copy()), 255)
    means = 255 - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(families["ResNet50"].preprocess_input(pixels.copy()).ravel(), means)


def test_every_network_of_keras_applications_has_its_smallest_size():
    import image_classification

    for name, backbone in image_classification.backbones().items():
        size = backbone.smallest - 1
        with pytest.raises(ValueError, match=rf"at least {size + 1}x{size + 1}"):  # before a layer is made
            backbone.build(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
        with pytest.raises(ValueError, match=f"{name} takes images of at least {size + 1} pixels"):
            backbone.check_size(name, size)
        backbone.check_size(name, size + 1)


def test_image_classification_refuses_a_size_that_the_backbone_does_not_take(tmp_path, photos, capsys):
    arguments = ["--dataset", str(photos), "--out", str(tmp_path), "--backbone", "Xception", "--image-size", "64"]
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("image_classification").main(arguments)
    assert "Give --image-size 71 or more" in capsys.readouterr().err


def spy(fit, fits):
    def wrapper(model, *args, **kwargs):
        fits.append(len(model.trainable_variables))
        return fit(model, *args, **kwargs)

    return wrapper


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["MobileNetV2", "MobileNetV3Small", "ResNet50", "EfficientNetB0"])
def test_image_classification_with_published_backbones(backbone, tmp_path, monkeypatch, photos):
    arguments = ["--dataset", str(photos), "--epochs", "1", "--image-size", "32", "--weights", "none"]
    report = run(monkeypatch, "image_classification", [*arguments, "--backbone", backbone], tmp_path / "out")
    files = by_name(report)
    assert files["pruned_float"]["macs"] < files["dense_float"]["macs"]
    assert files["pruned_int8"]["file_bytes"] < files["pruned_float"]["file_bytes"]


def test_image_classification_says_what_works_without_a_network(tmp_path, monkeypatch, photos, capsys):
    def fail(**kwargs):
        raise Exception("URL fetch failure")

    fail.__module__ = "keras.src.applications.mobilenet_v2"
    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("image_classification").main(["--dataset", str(photos), "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert "Could not build MobileNetV2 with the weights 'imagenet': URL fetch failure" in error
    assert "--weights none" in error


def test_every_recipe_is_in_the_documentation():
    named = set(re.findall(r"recipes/(\w+)\.py", PAGE))
    assert named == set(NAMES)
    for name in NAMES:
        assert f"[{name}.py](#{name}py)" in PAGE, f"{name} is not in the table"


def test_documented_commands_parse(parser_of):
    commands = re.findall(r"^python recipes/(\w+)\.py(.*)$", PAGE, re.M)
    assert {name for name, _ in commands} == set(NAMES)
    for name, arguments in commands:
        if arguments == " --help":  # ends the process, as it should
            continue
        parser_of(name).parse_args(shlex.split(arguments, comments=True))


def test_documented_options_exist(parser_of):
    for name, section in re.findall(r"^## (\w+)\.py\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
        known = set(parser_of(name)._option_string_actions) | {"--no-deps"}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) <= known, name


def test_documented_packages_are_those_of_the_errors():
    source = (ROOT / "recipes" / "example_data.py").read_text()
    for package, version in re.findall(r"pip install --no-deps (\w+)==([\d.]+)", PAGE):
        assert f'"{package}", "{version}"' in source
