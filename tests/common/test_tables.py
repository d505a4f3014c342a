import json
import sys
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest

from tfprune.common.tables import Report, new_table


@dataclass(frozen=True)
class Example(Report):
    name: str
    count: int

    def to_table(self):
        table = new_table("A title", ["name"], ["count"])
        table.add_row(self.name, str(self.count))
        return table


def test_prints_as_a_table():
    lines = str(Example("conv", 7)).splitlines()
    assert lines[0].rstrip() == "A title"
    assert [cell.strip() for cell in lines[2].strip("┃│").replace("┃", "│").split("│")] == ["name", "count"]
    assert "conv" in lines[4]
    assert "\x1b" not in str(Example("conv", 7))


def test_a_long_name_is_not_cut():
    name = "a_very_long_layer_name_" * 10
    lines = str(Example(name, 7)).splitlines()
    assert max(len(line) for line in lines) <= 120
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(cells) == name


@pytest.mark.parametrize("width", [30, 80, 200])
def test_fits_the_terminal_in_plain_text(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for colours in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(colours, "1")
    report = Example("a_long_name_" * 9, 10**12)
    text = str(report)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    for cell in (report.name, str(report.count)):  # folded at worst, not cut
        assert sum(text.count(character) for character in set(cell)) >= len(cell)
    assert "…" not in text


def test_brackets_in_names_are_not_markup():
    assert "conv[bold]:smile:" in str(Example("conv[bold]:smile:", 7))


@dataclass(frozen=True)
class Awkward(Report):
    def to_table(self):
        table = new_table("Sizes <of> all", ["name"], ["weights", "share"])
        table.add_row("a|b_1 & <c>", "1,234,567.5", "50%")
        table.add_row('two\nlines, "quoted"', "12", "-")
        table.caption = "below & beside"
        return table


def test_other_forms_of_a_table(tmp_path):
    report = Awkward()
    assert report.to_csv() == 'name,weights,share\na|b_1 & <c>,1234567.5,50%\n"two\nlines, ""quoted""",12,-\n'
    assert report.to_markdown().splitlines() == [
        "| name | weights | share |",
        "|---|---:|---:|",
        "| a\\|b_1 & <c> | 1,234,567.5 | 50% |",
        '| two<br>lines, "quoted" | 12 | - |',
    ]
    assert report.to_latex().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name & weights & share \\",
        r"\midrule",
        r"a|b\_1 \& <c> & 1,234,567.5 & 50\% \\",
        r'two lines, "quoted" & 12 & - \\',
        r"\bottomrule",
        r"\end{tabular}",
    ]
    page = report._repr_html_()
    assert [cell for cell in ElementTree.fromstring(page.replace("<br>", " ")).itertext() if cell.strip()] == [
        *("Sizes <of> all", "name", "weights", "share"),
        *("a|b_1 & <c>", "1,234,567.5", "50%", 'two lines, "quoted"', "12", "-", "below & beside"),
    ]
    for suffix, text in ((".csv", report.to_csv()), (".md", report.to_markdown()), (".tex", report.to_latex())):
        assert report.save(tmp_path / f"table{suffix}").read_text() == text


def test_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = Awkward().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["weights"].tolist() == [1234567.5, 12.0]
    assert frame["share"].tolist() == ["50%", "-"]


def test_data_frames_ask_for_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        Awkward().to_pandas()


def test_saves_json(tmp_path):
    path = Example("conv", 7).save(tmp_path / "report.json")
    assert path == tmp_path / "report.json"
    assert json.loads(path.read_text()) == {"name": "conv", "count": 7}
    assert path.read_text().endswith("}\n")


def test_a_report_must_say_how_it_prints():
    class Silent(Report):
        pass

    with pytest.raises(TypeError, match=r"abstract.*to_table"):
        str(Silent())
