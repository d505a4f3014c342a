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
