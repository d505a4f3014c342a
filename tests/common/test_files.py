import gzip
from pathlib import Path

import pytest

from tfprune.common.files import check_writable, gzip_size, write_atomically


def test_text_is_utf8_and_bytes_are_bytes(tmp_path):
    assert write_atomically(tmp_path / "a.txt", "é\n").read_bytes() == b"\xc3\xa9\n"
    assert write_atomically(str(tmp_path / "b.bin"), b"\x00\xff").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.bin"]


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a longer old text")
    write_atomically(path, "new")
    assert path.read_text() == "new"


def test_missing_folders_are_made(tmp_path):
    assert write_atomically(tmp_path / "new" / "folder" / "a", "x").read_text() == "x"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off(self, content):
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", break_off)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_checking_leaves_nothing_behind(tmp_path):
    assert check_writable(tmp_path / "model.tflite", suffix=".tflite") == tmp_path / "model.tflite"
    assert list(tmp_path.iterdir()) == []


def test_checking_leaves_an_existing_file_as_it_is(tmp_path):
    (tmp_path / "a").write_text("old")
    check_writable(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("name", ["model.keras", "model", "model.tflite.gz"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in '\.tflite'.*Try 'model(\.tflite)?\.tflite'"):
        check_writable(tmp_path / name, suffix=".tflite")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Add a file name"):
        check_writable(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match=r"Cannot write .*a/b/c.*Choose a path"):
        check_writable(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a").read_text() == ""


def test_gzip_size_is_that_of_the_real_thing():
    content = bytes(range(256)) * 40
    assert gzip_size(content) == len(gzip.compress(content, 9, mtime=0)) < len(content)
    assert gzip_size(bytes(10_000)) < 60
