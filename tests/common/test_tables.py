import json
from dataclasses import dataclass

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
