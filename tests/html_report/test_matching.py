"""Layers of several models side by side: by position and kind, whatever they are called."""

import keras
import pytest
from networks import dense

import tfprune
from tfprune.html_report.facts import gather
from tfprune.html_report.matching import matched
from tfprune.html_report.sections import sections

L = keras.layers


def kinds(text):
    """Kinds by name, from `name:kind` and so on."""
    return {name: (kind,) for name, kind in (each.split(":") for each in text.split())}


def pairs(*models):
    return [tuple(name or "-" for name in row.names) for row in matched([kinds(text) for text in models])]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a:conv b:conv c:fc", "d:conv e:conv f:fc", ["ad", "be", "cf"]),
        # counted up: the names that both have are of other places
        ("a:conv b:conv c:conv", "b:conv c:conv d:conv", ["ab", "bc", "cd"]),
        # a block is gone: names tell which of several that are alike
        ("a:conv b:conv c:conv d:fc", "a:conv c:conv d:fc", ["aa", "b-", "cc", "dd"]),
        ("a:conv b:fc", "a:conv x:dw y:dw b:fc", ["aa", "-x", "-y", "bb"]),
        ("a:conv b:fc", "b:fc a:conv", ["a-", "bb", "-a"]),
        # another network: only what has the same name, and is of the same kind
        ("a:conv b:dw c:dw d:dw", "x:fc y:fc z:conv a:fc", ["a-", "b-", "c-", "d-", "-x", "-y", "-z", "-a"]),
        ("a:conv", "", ["a-"]),
    ],
)
def test_rows_by_hand(first, second, expected):
    assert ["".join(row) for row in pairs(first, second)] == expected


def test_a_third_model_finds_its_place_among_the_rows_of_two():
    assert pairs("a:conv d:fc", "a:conv b:dw d:fc", "x:conv y:dw z:dw w:fc") == [
        ("a", "a", "x"), ("-", "b", "y"), ("-", "-", "z"), ("d", "d", "w"),
    ]  # fmt: skip


def convolutions():
    inputs = keras.Input((12, 12, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, use_bias=False)(inputs)))
    x = L.ReLU()(L.DepthwiseConv2D(3)(x))
    x = L.SeparableConv2D(8, 3)(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def nested():
    block = keras.Sequential([keras.Input((6, 4)), L.Conv1D(8, 3, activation="relu"), L.Conv1D(8, 1)])
    inputs = keras.Input((6, 4))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(block(inputs))))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("build", [convolutions, nested, dense])
def test_builds_pruned_and_quantize_aware_models_share_their_rows(build):
    model = build()
    models = {"model": model, "again": build(), "half": tfprune.prune_channels(build(), 0.5)}
    models["aware"] = tfprune.quantize_aware(model)
    facts = gather(models, None, None, None, ())
    for key in ("layer_kinds", "kernel_kinds"):
        rows = matched([getattr(each, key) for each in facts.models])
        whole = [row for row in rows if None not in row.names]
        assert len(whole) == len(getattr(facts.models[0], key))
        alone = [row.names for row in rows if None in row.names]  # of a separable convolution, its first half
        assert all(names[:3] == (None, None, None) and "depthwise" in names[3] for names in alone)
        assert len(alone) == (key == "layer_kinds" and build is convolutions)
    (layers,) = (section for section in sections(facts) if section.name == "layers")
    rows = layers.tables[0].rows
    ours = [row for row in rows if row[1] != "\N{EN DASH}"]
    assert all(row[1:3] == row[3:5] for row in ours)  # channels and MACs of both builds
    assert all(row[1] == row[7] for row in ours)  # and the channels in int8
    assert len(ours) == len(facts.models[0].macs)
    assert ours[0][0].startswith(next(iter(facts.models[0].macs)))
