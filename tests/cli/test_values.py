"""Numbers on the command line."""

import argparse
import dataclasses
import re

import pytest

from tfprune import Budget
from tfprune_cli.values import SIZES, budget


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("macs=0.5", {"macs": 0.5}),
        ("macs=40%, latency=50%", {"macs": 0.4, "latency": 0.5}),
        ("file=300kB,parameters=1.5M", {"file_bytes": 300_000, "parameters": 1_500_000}),
        ("file=50k", {"file_bytes": 50_000}),
        ("file=1.5MiB", {"file_bytes": 1.5 * 1024 * 1024}),
        ("weights=0.5mb", {"weight_bytes": 500_000}),
        ("file=2000", {"file_bytes": 2000}),
        ("parameters=1e5", {"parameters": 100_000}),
    ],
)
def test_budget(text, limits):
    assert budget(text) == pytest.approx(limits)
    Budget(**budget(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.5", "name=number"),
        ("", "name=number"),
        ("macs=0.5,", "name=number"),
        ("lattency=0.5", "Did you mean latency?"),
        ("memory=5MB", "macs, parameters, weights, file, latency"),
        ("macs=0.5,macs=0.4", "given twice"),
        ("macs=half", "above 0"),
        ("macs=0", "above 0"),
        ("macs=-1", "above 0"),
        ("macs=1.2.3", "above 0"),
        ("macs=300kB", "a unit: %, k, M, G."),
        ("file=300 kilo", "kB, MB"),
        ("file=0.5B", "above 0"),
        ("latency=8ms", "milliseconds differ"),
        ("latency=1", "milliseconds differ"),
    ],
)
def test_what_is_no_budget(text, words):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(words)):
        budget(text)


def test_every_limit_that_the_library_knows_can_be_given():
    assert set(SIZES.values()) == {field.name for field in dataclasses.fields(Budget)}
