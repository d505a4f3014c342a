"""Folders of images: which images, in which order, of which size, and what becomes of their pixels."""

import keras
import numpy as np
import pytest

from tfprune_cli.errors import InputError
from tfprune_cli.images import ImageFolder
from tfprune_cli.paths import labelled_path

L = keras.layers


def model(shape=(4, 4, 3), units=2):
    return keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(units)])


def pixels(value, channels=3, size=4):
    """An image whose left half is `value`, and whose right half is black."""
    image = np.zeros((size, size, channels), "uint8")
    image[:, : size // 2] = value
    return image


def save(path, value, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.save_img(path, pixels(value, **options), scale=False)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "photos/dog/b.png", 255)
    save(tmp_path / "photos/dog/a.PNG", 51)
    save(tmp_path / "photos/cat/z.png", 102)
    save(tmp_path / "photos/.trash/x.png", 9)
    (tmp_path / "photos/cat/Thumbs.db").write_text("of another system")
    return labelled_path(str(tmp_path / "photos"))


def test_classes_are_numbered_by_name_and_pixels_stay(folder, capsys):
    x, y = ImageFolder(folder, "none").read(model())
    assert (x.shape, x.dtype) == ((3, 4, 4, 3), np.uint8)
    assert y.tolist() == [0, 1, 1]
    for image, value in zip(x, (102, 51, 255), strict=True):
        np.testing.assert_array_equal(image, pixels(value))
    said = capsys.readouterr().err
    assert "3 images of 2 classes, cat, dog, resized to 4 x 4; pixels are 0 to 255" in said
    assert "1 files that are no images are left out" in said


@pytest.mark.parametrize(("scale", "ends"), [("unit", (0, 1)), ("signed", (-1, 1))])
def test_scale(folder, scale, ends):
    x = ImageFolder(folder, scale).read(model())[0]
    assert x.dtype == np.float32
    np.testing.assert_allclose((x[2].min(), x[2].max()), ends, atol=1e-6)


def test_size_and_color_are_those_of_the_model(folder):
    x = ImageFolder(folder, "none").read(model((2, 2, 1)))[0]
    assert x.shape == (3, 2, 2, 1)
    np.testing.assert_array_equal(x[:, 0, :, 0], [[102, 0], [51, 0], [255, 0]])


def test_images_in_one_folder_have_no_labels(tmp_path, capsys):
    save(tmp_path / "b.png", 9)
    save(tmp_path / "a.png", 7)
    x, y = ImageFolder(labelled_path(str(tmp_path)), "none").read(model(units=5))
    assert y is None
    assert x[:, 0, 0, 0].tolist() == [7, 9]
    assert "no classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: model(units=3), "2 classes, cat, dog, and the model tells 3 apart"),
        (lambda: model((4, 4, 2)), "inputs of shape (4, 4, 2)"),
        (lambda: model((48,)), "inputs of shape (48,)"),
        (lambda: keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPooling2D(), L.Dense(2)]), "None"),
    ],
    ids=["classes", "channels", "no image", "size"],
)
def test_model_that_takes_something_else(folder, made, words):
    with pytest.raises(InputError) as caught:
        ImageFolder(folder, "none").read(made())
    assert words in str(caught.value)


def test_yes_or_no_are_two_classes(folder):
    assert ImageFolder(folder, "none").read(model(units=1))[1].tolist() == [0, 1, 1]


def test_file_that_is_no_image_is_named(folder):
    (folder / "dog/aa.jpg").write_bytes(b"\xff\xd8\xff of nothing")
    with pytest.raises(InputError, match=r"aa\.jpg' cannot be read as an image: jpeg::Uncompress failed"):
        ImageFolder(folder, "none").read(model())
