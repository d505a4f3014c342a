"""The docs site builds without a warning, shows what the pages hold, and asks nothing of the network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"', page.read_text())
        assert [link for link in map("".join, loaded) if "//" in link] == [], page


def test_tables_and_lists_are_not_left_as_text(site):
    for page in site.rglob("*.html"):
        paragraphs = re.findall(r"<p>(.*?)</p>", page.read_text(), re.S)
        assert [text for text in paragraphs if re.search(r"^(\||- |\d+\. |```|:::)", text, re.M)] == [], page


def test_reference_shows_parameters_and_examples(site):
    text = re.sub(r"<[^>]+>", "", (site / "api/callbacks.html").read_text())
    assert "The fraction of filters to prune by distance" in text
    assert "Examples:" in text
    assert "Example:" not in text
