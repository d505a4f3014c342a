"""The page: what stands on it, that it stands alone, and that nothing is written before all is well."""

import re
import sys

import keras
import numpy as np
import pytest
from networks import dense, residual
from pages import HISTORY, NAMES, SCHEDULES, SECTIONS, Reader, half_pruned
from PIL import Image

import tfprune
from tfprune.schedules import Polynomial

L = keras.layers


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def read(page):
    return Reader(page.read_text("utf-8"))


def sections_of(reader):
    return [attributes["id"] for attributes in reader.having("section")]


def test_everything_given_is_a_section_with_a_sentence(reader):
    assert sections_of(reader) == SECTIONS
    assert [link["href"] for link in reader.having("a")] == [f"#{name}" for name in SECTIONS]
    for words in (
        *NAMES,
        "residual and 2 others",
        "24 samples",
        "model output",  # why the classes are frozen
        "CONV_2D",
        "half.tflite",
        "fewer than 1024 weights",  # why a kernel is left in float
        "376 updates",
        "updates, without end",
    ):
        assert words in reader.text


def test_the_page_stands_alone(made, reader):
    page = made.page.read_text("utf-8")
    assert re.findall(r"\S*https?://\S*", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)) == []
    assert not {"script", "img", "iframe", "object", "base"} & {tag for tag, _ in reader.elements}
    references = [
        value
        for _, attributes in reader.elements
        for key, value in attributes.items()
        if key in ("href", "xlink:href", "src") or (value or "").startswith("url(")
    ]
    assert len(references) > 50
    assert all(value.startswith(("#", "url(#", "data:")) for value in references)
    (viewport,) = (meta["content"] for meta in reader.having("meta") if meta.get("name") == "viewport")
    assert viewport == "width=device-width, initial-scale=1"


def test_ids_are_unique_and_found(reader):
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    values = [value or "" for _, attributes in reader.elements for value in attributes.values()]
    wanted = {name for value in values for name in re.findall(r"^#(.+)$|url\(#(.+?)\)", value)}
    assert {name for pair in wanted for name in pair if name} <= set(ids)


def test_every_plot_is_a_picture_with_a_title_and_a_png(made, reader):
    folder = made.page.parent / "report_plots"
    names = [svg["aria-labelledby"].removesuffix("-title") for svg in reader.having("svg")]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(names)
    assert {"accuracy-macs", "accuracy-file-size", "accuracy-latency", "width", "macs", "density"} <= set(names)
    assert {"density-epochs", "history-01", "history-02", "history-03", "schedule-01", "schedule-03"} <= set(names)
    for path in folder.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert (picture.format, picture.width) == ("PNG", 750)
            assert len(picture.convert("L").getcolors()) > 10, f"{path.name} is empty"
    assert files(made.page.parent)[0] == "report.html"  # and nothing hidden is left


def test_text_is_escaped_wherever_it_stands(tmp_path):
    name = '<b>&"bold'
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="<i>&amp;")(inputs), name="<u>")
    page = tfprune.write_report(
        tmp_path / "report.html", {name: model}, history={"<s>": [1], "density/<em>": [1]},
        schedules={"<del>&": SCHEDULES["sparsity"]},
    )  # fmt: skip
    reader = read(page)
    assert not {"b", "i", "u", "s", "em", "del"} & {tag for tag, _ in reader.elements}
    for words in (name, "<i>&amp;", "<s>", "<em>", "<del>&: its value over time"):
        assert words in reader.text


def test_long_names_may_break_behind_their_separators_only(tmp_path):
    name = "efficientnet_v2/backbone.stage-1"
    page = tfprune.write_report(tmp_path / "report.html", {name: dense()})
    text = page.read_text("utf-8")
    assert "efficientnet_<wbr>v2/<wbr>backbone.<wbr>stage-<wbr>1</h1>" in text
    assert name in read(page).text


def test_what_is_not_given_is_not_shown(made, tmp_path):
    page = tfprune.write_report(tmp_path / "keras.html", [residual()])
    assert sections_of(read(page)) == ["summary", "layers", "groups"]
    assert [path.name for path in sorted((tmp_path / "keras_plots").iterdir())] == ["macs.png", "width.png"]
    page = tfprune.write_report(tmp_path / "file.html", [made.models[NAMES[2]]])
    assert sections_of(read(page)) == ["summary", "exports"]
    assert list((tmp_path / "file_plots").iterdir()) == []


def test_the_same_input_gives_the_same_bytes(tmp_path):
    written = []
    for name in "ab":
        # One plot of each kind: a width, costs, zeros, curves by epoch and a schedule.
        history, schedules = {"loss": HISTORY["loss"]}, {"drop": SCHEDULES["drop"]}
        keras.utils.clear_session(free_memory=False)
        page = tfprune.write_report(
            tmp_path / name / "report.html", {"half": half_pruned()}, history=history, schedules=schedules
        )
        written.append({path.name: path.read_bytes() for path in page.parent.rglob("*.*")})
    assert len(written[0]) > 4
    assert written[0] == written[1]


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if anything is measured or drawn."""
    monkeypatch.setattr(sys.modules["tfprune.html_report.facts"], "compare", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(sys.modules["tfprune.html_report.page"], "sections", lambda *_: pytest.fail("drawn"))


def test_what_is_there_already_stays(tmp_path, no_work):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tfprune.write_report(tmp_path / "report.html", [dense()])
    (tmp_path / "other_plots").mkdir()
    with pytest.raises(FileExistsError, match=r"other_plots', which exists already\. Pass overwrite=True"):
        tfprune.write_report(tmp_path / "other.html", [dense()])
    (tmp_path / "other_plots" / "thesis.doc").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        tfprune.write_report(tmp_path / "other.html", [dense()], overwrite=True)
    assert files(tmp_path) == ["other_plots", "other_plots/thesis.doc", "report.html"]


def free_size():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(inputs))))


@pytest.mark.parametrize(
    ("error", "match", "changed"),
    [
        (ValueError, r"must end in '.html'", {"path": "report.pdf"}),
        (ValueError, "at least one model", {"models": []}),
        (TypeError, "list or a dict of Keras models", {"models": "model.keras"}),
        (FileNotFoundError, "no file at 'missing.tflite'", {"models": ["missing.tflite"]}),
        (FileNotFoundError, "no file at 'log.csv'", {"history": "log.csv"}),
        (ValueError, "must end in .csv", {"history": "log.txt"}),
        (TypeError, "history is what fit", {"history": 3}),
        (ValueError, "list of numbers for 'loss'", {"history": {"loss": ["high"]}}),
        (ValueError, r"'loss' in history, one for each epoch: \[0.5\]", {"history": {"loss": 0.5}}),
        (ValueError, "one for each epoch", {"history": {"loss": np.array(0.5)}}),
        (ValueError, "Expected lists of numbers by name", {"history": {}}),
        (ValueError, r"\(None, None, None, 3\).*fixed keras.Input", {"models": [free_size()]}),
        (TypeError, "schedules is a schedule", {"schedules": [0.5]}),
        (ValueError, "needs to know when it ends", {"schedules": Polynomial(0.5)}),
        (TypeError, "exports is a list", {"exports": "model.tflite"}),
        (TypeError, "exports holds what export", {"exports": [3]}),
        (FileNotFoundError, "no file at 'missing.tflite'", {"exports": ["missing.tflite"]}),
        (ValueError, "cut short, or no .tflite file", {"exports": [__file__]}),
    ],
)
def test_bad_input_is_refused_before_work(tmp_path, monkeypatch, no_work, error, match, changed):
    monkeypatch.chdir(tmp_path)
    arguments = {"path": "report.html", "models": [dense()], **changed}
    with pytest.raises(error, match=match):
        tfprune.write_report(**arguments)
    assert files(tmp_path) == []


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, no_work, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'tfprune\[report\]'"):
        tfprune.write_report(tmp_path / "report.html", [dense()])
    assert files(tmp_path) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("broken", ["_render", "_folder_beside", "write_atomically"])
def test_a_report_that_fails_leaves_the_old_one(tmp_path, monkeypatch, broken):
    page = tfprune.write_report(tmp_path / "report.html", [dense()], history={"loss": [1]})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["tfprune.html_report.page"], broken, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tfprune.write_report(page, [dense((5, 3))], overwrite=True)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert kept == before
    tfprune.write_report(page, [dense((5, 3))], overwrite=True)
    assert files(tmp_path) == ["report.html", "report_plots", "report_plots/macs.png", "report_plots/width.png"]
