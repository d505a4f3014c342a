"""What docs/command-line.md tells people to run, runs, and prints what the page says."""

import re

import command_line_page
import pytest
from command_line_page import PAGE, RUN
from test_command import COMMANDS

EXACT = ("profile model.keras", "groups", "prune")
"""Commands that print the same on every machine, whatever the weights are."""


def shape(text):
    """What is printed without numbers, the room they take, and what is said of them: machines and weights differ."""
    text = re.sub(r"\b(rose|fell)\b", "changed", text)
    text = re.sub(r"\n'int8' computes in int8 and is slower .*? gain nothing\.", "", text, flags=re.S)
    return re.sub(r"[━─ ]+", " ", re.sub(r"[-+]?\d[\d,.]*(e-\d+)?", "#", text)).strip()


TIMED = ("compare", "report", "compress")
"""Commands that train, or run every file some hundred times; their own tests are faster."""


@pytest.mark.parametrize("skipped", [TIMED, pytest.param((), marks=pytest.mark.slow)], ids=["untimed", "whole"])
def test_page_runs_as_printed(tmp_path, monkeypatch, skipped):
    monkeypatch.chdir(tmp_path)
    command_line_page.make_files(tmp_path, epochs=0)
    blocks = RUN.findall(PAGE.read_text())
    assert {command for block, _ in blocks for command in re.findall(r"^tfprune (\w+)", block, re.M)} == set(COMMANDS)
    for block, expected in blocks:
        command = block.removeprefix("tfprune ")
        if skipped and command.startswith(skipped):
            continue
        code, printed = command_line_page.run(block)
        assert code == (2 if expected.startswith("error:") else 0), printed
        if expected and command.startswith(EXACT):
            assert printed == expected
        elif expected:
            assert shape(printed) == shape(expected)


def test_every_shell_block_is_one_that_the_test_runs():
    text = PAGE.read_text()
    assert len(re.findall(r"^ *```\s*(?:sh|bash|shell|console)\b", text, re.M)) == len(RUN.findall(text))
