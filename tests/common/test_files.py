import gzip
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfprune.common.files import check_expansion, check_writable, gzip_size, write_atomically, writing
from tfprune.data import load_model
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile


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
    with pytest.raises(OSError, match=rf"Cannot write '{path}': No space left on device\. Free some room") as raised:
        write_atomically(path, "new")
    assert raised.value.errno == 28
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


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            FileNotFoundError(2, "No such file or directory"),
            FileNotFoundError,
            "directory. The folder '.*' was removed",
        ),
        (PermissionError(13, "Permission denied"), PermissionError, "Permission denied. Check the disk"),
        (RuntimeError("Can't flush\n(No space left on device)"), OSError, r"flush \(No space.*Free some room"),
    ],
)
def test_errors_of_the_disk_name_the_users_file(tmp_path, error, kind, message):
    path = tmp_path / "model.keras"
    with pytest.raises(kind, match=rf"^Cannot write '{path}': .*{message}"), writing(path):
        raise error


def test_two_threads_write_one_file(tmp_path):
    path, texts = tmp_path / "a.txt", [str(number) * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda text: write_atomically(path, text), texts))
            assert path.read_text() in texts
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def packed(path, num_bytes, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive, archive.open("part", "w") as part:
        for _ in range(num_bytes // 2**20):
            part.write(bytes(2**20))
    return path


def test_archives_that_would_fill_memory_are_refused(tmp_path):
    bomb = packed(tmp_path / "bomb.keras", 300 * 2**20)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(
        ValueError, match=rf"'{bomb}' would expand from .* to 314,572,800 bytes.*268,435,456 bytes and 100"
    ):
        check_expansion(bomb)
    behind = tmp_path / "model.tflite"  # as labels stand behind a graph
    behind.write_bytes(b"....TFL3" + bomb.read_bytes())
    for path, read in ((bomb, load_model), (behind, TFLiteFile.read), (behind, TFLiteModel)):
        with pytest.raises(ValueError, match="would expand"):
            read(path)
    check_expansion(packed(tmp_path / "zeros.npz", 200 * 2**20))  # an array of zeros may be this large
    (tmp_path / "text").write_text("no archive")
    check_expansion(tmp_path / "text")


def _hdf5(path, shape):
    """A file that says that it holds so many zeros: of compressed or unwritten datasets it holds no more than that."""
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", shape, "float32", chunks=(1024,), compression="gzip")
        file.create_group("inner").create_dataset("bias", data=np.ones(3, "float32"))
    return path


def test_what_hdf5_files_expand_to_is_known_without_reading_them(tmp_path):
    bomb = _hdf5(tmp_path / "bomb.h5", (2**27,))
    with pytest.raises(ValueError, match=rf"'{bomb}' would expand from .* to 536,870,924 bytes"):
        check_expansion(bomb)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "bomb.keras", "w", compression) as archive:
            archive.write(bomb, "model.weights.h5")
        with pytest.raises(ValueError, match="would expand"):
            check_expansion(tmp_path / "bomb.keras")
    check_expansion(_hdf5(tmp_path / "small.h5", (2**20,)))
    (tmp_path / "cut.h5").write_bytes(bomb.read_bytes()[:100])
    check_expansion(tmp_path / "cut.h5")
