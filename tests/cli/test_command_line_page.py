"""What docs/command-line.md tells people to run, runs, and prints what the page says."""

import re

import command_line_page
import pytest
from command_line_page import PAGE, RUN
from test_command import COMMANDS

EXACT = ("profile model.keras", "groups", "prune")
"""Commands that print the same on every machine, whatever the weights are."""


def shape(text):
    """A printed table without numbers, which differ from machine to machine, and without the room they take."""
    return re.sub(r"[━─ ]+", " ", re.sub(r"[-+]?\d[\d,.]*", "#", text)).strip()


TIMED = ("compare", "report")
"""Commands that run every file some hundred times; test_commands.py runs them faster."""


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
