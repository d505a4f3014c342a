"""Names that fit, whole words of them, and never two the same."""

import pytest

from tfprune.common.names import labels, shortened, told_apart

LONG = [
    f"efficientnet_v2_backbone_stage{stage}_block{block}_inverted_residual_bottleneck_{kind}_convolution"
    for stage in range(2)
    for block in range(3)
    for kind in ("expand", "project")
]


def test_equal_names_are_numbered_around_those_that_are_taken():
    assert told_apart(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]


@pytest.mark.parametrize(
    "name", [*LONG, "inner/block_13_expand_convolution", "one-two.three four/five six-seven.eight nine/ten"]
)
@pytest.mark.parametrize("longest", [14, 26, 52])
def test_long_names_lose_whole_words(name, longest):
    short = shortened(name, longest)
    assert len(short) <= longest
    for piece in filter(None, short.split("…")):
        start = name.index(piece)
        before, behind = name[:start][-1:], name[start + len(piece) :][:1]
        assert not (before.isalnum() and piece[0].isalnum()), short
        assert not (behind.isalnum() and piece[-1].isalnum()), short


def test_a_word_that_is_too_long_by_itself_is_cut():
    assert shortened("a" * 20 + "b" * 20, 9) == "aaaa…bbbb"
    assert shortened("conv", 9) == "conv"


def test_labels_differ_where_the_names_do():
    found = labels(LONG, 26)
    assert len(set(found)) == len(LONG)
    for name, label in zip(LONG, found, strict=True):
        assert len(label) <= 26
        for word in (name.split("_")[3], name.split("_")[4], name.split("_")[8]):
            assert word in label


def test_labels_of_names_that_begin_and_end_alike_are_numbered():
    assert labels(["x" * 40, "x" * 41], 9) == ["xxxx…xxxx", "xxxx…xxxx (2)"]
