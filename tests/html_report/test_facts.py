"""What a report tells of models and files, by hand."""

import dataclasses

import keras
import numpy as np
import pytest
from networks import chain, dense, images, randomize
from pages import Reader

import tfprune
from tfprune.exporting.reasons import FloatOperator
from tfprune.html_report.facts import Facts, gather
from tfprune.html_report.sections import sections
from tfprune.schedules import Constant

L = keras.layers


def facts_of(models, **others):
    return gather(models, **{"data": None, "history": None, "schedules": None, "exports": (), **others})


def table_of(facts, name, number=0):
    (section,) = (section for section in sections(facts) if section.name == name)
    return section.tables[number]


def test_layers_by_hand():
    model = chain()
    kernel = model.get_layer("second").kernel
    values = np.ones(kernel.shape)
    values[..., 1:] = 0
    kernel.assign(values)
    inner = keras.Sequential([keras.Input((8, 8, 2)), L.DepthwiseConv2D(3, depth_multiplier=2, name="d")], name="inner")
    outer = keras.Sequential([keras.Input((8, 8, 2)), inner, L.Conv2D(3, 6, name="wide"), L.Flatten()])
    found = facts_of({"chain": model, "nested": outer})
    first, second = found.models
    assert first.widths == {"first": 4, "second": 6, "classes": 3}
    assert first.macs == {"first": 8 * 8 * 9 * 2 * 4, "second": 6 * 6 * 9 * 4 * 6, "classes": 18}
    assert first.densities == {"first": 1, "second": pytest.approx(1 / 6), "classes": 1}
    assert (second.widths, second.macs) == ({"inner/d": 4, "wide": 3}, {"inner/d": 1296, "wide": 432})
    rows = table_of(found, "layers").rows
    assert rows[0] == ("first", "4", "4,608", "\N{EN DASH}", "\N{EN DASH}")
    assert rows[3] == ("inner/d", "\N{EN DASH}", "\N{EN DASH}", "4", "1,296")


def test_channels_are_where_the_layer_keeps_them():
    model = keras.Sequential([keras.Input((2, 8, 9)), L.Conv2D(5, 3, data_format="channels_first", name="conv")])
    assert facts_of([model]).models[0].widths == {"conv": 5}


def test_sizes_without_data(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(10, use_bias=False)], name="wide")
    small = keras.Sequential([keras.Input((4,)), L.Dense(5, use_bias=False), L.Dense(10, use_bias=False)], name="deep")
    small.save(tmp_path / "deep.keras")
    tfprune.export(model, tmp_path / "wide.tflite")
    found = facts_of([model, tmp_path / "deep.keras", tmp_path / "wide.tflite"])
    size = (tmp_path / "wide.tflite").stat().st_size
    assert table_of(found, "summary").rows == (
        ("wide", "40", "40", "40", "\N{EN DASH}"),
        ("deep.keras", "70\nx 1.75", "70\nx 1.75", "70\nx 1.75", "\N{EN DASH}"),
        ("wide.tflite", "40\nx 1.00", "40\nx 1.00", "40\nx 1.00", f"{size:,}"),
    )
    (summary, *_) = sections(found)
    assert summary.cards[0].facts == (("x 1.75", "weights"), ("x 1.75", "nonzero weights"), ("x 1.75", "MACs"))


def test_what_was_measured_is_in_the_table_and_on_the_cards(made, reader: Reader):
    assert "Comparison on 24 samples" in reader.text
    headers = [attributes for attributes in reader.having("th") if attributes.get("scope") == "col"]
    assert len(headers) > 20
    labels, predicted = made.data[1], np.asarray(made.models["residual"](made.data[0])).argmax(axis=1)
    assert f"{np.mean(labels == predicted):.2%}" in reader.text


def test_groups_say_what_is_tied_and_why_some_are_frozen(made):
    found = facts_of(made.models)
    table = table_of(found, "groups")
    assert ("stem", "stem, branch", "branch, head", "yes", "5", "5") in table.rows
    assert ("classes", "classes", "", "no: model output", "3", "3") in table.rows
    assert table.note.startswith("2 of 3 groups are free: 12 of 15 channels may be removed. 0 are dead")


def test_a_file_tells_the_same_as_its_export(tmp_path):
    x, _ = images(16, shape=(2,))
    for mode in ("int8", "int16x8", None):
        path = tmp_path / f"{mode}.tflite"
        report = tfprune.export(randomize(dense()), path, quantize=mode, calibration=x)
        told, read = facts_of([path], exports=[report]).exports, facts_of([path]).exports
        assert [each.report for each in (*told, *read)] == [report, None]
        assert (told[0].operators, told[0].in_float) == (read[0].operators, read[0].in_float)
        (section,) = (section for section in sections(facts_of([path], exports=[report])) if section.name == "exports")
        assert ("No operator is left in float." in section.tables[0].note) == (mode is not None)


def test_reasons_stand_beside_their_operators(made):
    export = dataclasses.replace(
        made.export, float_operators=(FloatOperator("CONV_2D", 1, "why"), FloatOperator("CONV_2D", 2, "why not"))
    )
    table = table_of(facts_of(made.models, exports=[export]), "exports")
    rows = {row[0]: row[2] for row in table.rows}
    assert rows["CONV_2D"] == "1 of them: why\n2 of them: why not"
    assert set(rows.values()) == {rows["CONV_2D"], ""}


def test_layers_that_cannot_be_pruned_have_no_density():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4, name="low"), L.Dense(3, name="plain")])
    model.get_layer("low").enable_lora(2)
    assert facts_of([model]).models[0].densities == {"plain": 1}


def test_names_that_are_equal_once_they_can_be_printed_are_told_apart():
    models = {"a\x00": dense(), "a\x01": dense((5, 3)), 1: dense(), "1": dense()}
    curves = {"loss\x00": [1.0], "loss\x01": [2.0]}
    found = facts_of(models, history=curves, schedules={"s\x00": Constant(0.5), "s\x01": Constant(0.25)})
    mark = "\N{REPLACEMENT CHARACTER}"
    assert [model.name for model in found.models] == [f"a{mark}", f"a{mark} (2)", "1", "1 (2)"]
    assert found.models[0].costs != found.models[1].costs
    assert found.history == {f"loss{mark}": (1.0,), f"loss{mark} (2)": (2.0,)}
    assert [schedule.value(0) for schedule in found.schedules.values()] == [0.5, 0.25]


def test_sections_without_a_multiplying_layer():
    model = keras.Sequential([keras.Input((4, 4, 2)), L.GlobalAveragePooling2D()])
    found = facts_of([model])
    assert isinstance(found, Facts)
    assert [section.name for section in sections(found)] == ["summary", "groups"]
