import pytest
import tables


def test_documents_hold_the_measured_numbers(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_stale_number_is_found(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    text = (tables.ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("| dense float |", "| dense  float |"))
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert (tmp_path / "README.md").read_text() == text


def test_page_may_show_some_rows_of_a_table():
    text = tables.filled("<!-- table: regularization rows: dense, SSS -->\n<!-- end -->")
    header, rule, *rows = text.splitlines()[1:-1]
    assert header.startswith("| residual |")  # the VGG has no blocks that could go
    assert [row.split(" |")[0].split(",")[0] for row in rows] == ["| dense", "| SSS"]
    whole = tables.filled("<!-- table: regularization -->\n<!-- end -->").splitlines()
    assert {header, rule, *rows} <= set(whole)
    with pytest.raises(ValueError, match="No table has the rows"):
        tables.filled("<!-- table: regularization rows: dense, SSL -->\n<!-- end -->")
