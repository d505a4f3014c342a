"""Writing files so that a reader never finds half of one."""

import contextlib
import errno
import gzip
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HDF5 = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

_MAX_EXPANDED = 2**28
_MAX_RATIO = 100


def check_writable(path: str | os.PathLike[str], suffix: str = "", overwrite: bool = True) -> Path:
    """Return `path` as a `Path`, or raise before any work is spent on a file that cannot be written.

    Args:
        path: Where the file will go. Missing parent folders are created.
        suffix: The file name's required ending, such as `".tflite"`. Empty means any.
        overwrite: Whether a file may be there already.

    Returns:
        The path.

    Raises:
        FileExistsError: If there is a file and `overwrite` is False.
        ValueError: If the ending differs from `suffix`.
        OSError: If the parent folder cannot be made or written to, or `path` is a folder.

    Example:

    >>> check_writable("model.tflite", suffix=".tflite").name
    'model.tflite'
    """
    target = Path(path)
    if suffix and target.suffix != suffix:
        raise ValueError(f"The path must end in {suffix!r}. Received: {str(path)!r}. Try {target.stem + suffix!r}.")
    if target.is_dir():
        raise IsADirectoryError(f"Expected a path to a file, but {str(path)!r} is a folder. Add a file name to it.")
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"There is a file at {str(path)!r} already. Pass overwrite=True to replace it, or choose another path."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(target)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise type(error)(
            f"Cannot write {str(path)!r}: {error.strerror or error}. "
            "Choose a path in a folder that exists or can be created, and that you may write to."
        ) from error
    return target


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write `content` to a file beside `path`, then rename it, so that `path` is whole or untouched.

    Args:
        path: Where the file will go.
        content: What to write; text is encoded as UTF-8.

    Returns:
        The path.

    Raises:
        OSError: If the folder cannot be written to. `path` is then as it was.

    Example:

    >>> import tempfile
    >>> write_atomically(tempfile.mkdtemp() + "/report.json", "{}").read_text()
    '{}'
    """
    target = check_writable(path)
    beside = _beside(target)
    try:
        with writing(target):
            beside.write_bytes(content.encode() if isinstance(content, str) else content)
            beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file, and what to do, in errors of what is written inside.

    Args:
        path: The file that the user knows of, whatever is written on the way.

    Raises:
        OSError: Where an `OSError` or, as HDF5 raises of a full disk, a `RuntimeError` was raised; of the same class.

    Example:

    >>> with writing("model.keras"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    ...
    OSError: Cannot write 'model.keras': No space left on device. Free some room on the disk, and try again.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in reason:
            advice = "Free some room on the disk, and try again."
        elif isinstance(error, FileNotFoundError) or not Path(path).parent.is_dir():
            advice = (
                f"The folder {str(Path(path).parent)!r} was removed or moved meanwhile: bring it back, or start anew."
            )
        else:
            advice = "Check the disk, and that you may write there."
        told = (type(error) if isinstance(error, OSError) else OSError)(
            f"Cannot write {str(path)!r}: {' '.join(reason.split()).rstrip('.')}. {advice}"
        )
        told.errno = code
        raise told from error


def check_expansion(path: str | os.PathLike[str]) -> None:
    """Raise if a zip archive, as `.keras` and `.npz` files are, or an HDF5 file would fill memory when it is read.

    Args:
        path: Any file; what is neither passes.

    Raises:
        ValueError: If its parts take more than 256 MiB and more than 100 times what the file does: models and data do
            not shrink so, a few bytes that repeat do.
    """
    try:
        expanded = _expanded(path)
    except Exception:  # whatever a damaged list of contents leads to: who reads the file says so in better words
        return
    size = Path(path).stat().st_size
    if expanded > max(_MAX_EXPANDED, _MAX_RATIO * size):
        raise ValueError(
            f"{str(path)!r} would expand from {size:,} to {expanded:,} bytes; more than {_MAX_EXPANDED:,} bytes and "
            f"{_MAX_RATIO} times its size is refused. If you trust the file, unpack it and save it without compression."
        )


def _expanded(path: str | os.PathLike[str]) -> int:
    """How many bytes the parts of a file take when they are read; 0 for files without parts."""
    if not zipfile.is_zipfile(path):
        with Path(path).open("rb") as file:
            return _expanded_datasets(path) if file.read(len(HDF5)) == HDF5 else 0
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        expanded = sum(part.file_size for part in parts)
        size = Path(path).stat().st_size
        if expanded > max(_MAX_EXPANDED, _MAX_RATIO * size):
            return expanded
        for part in parts:  # HDF5 compresses by itself, and keeps what was never written as a shape alone
            if part.filename.endswith(".h5"):
                with archive.open(part) as file:
                    expanded += _expanded_datasets(file)
    return expanded


def _expanded_datasets(file: Any) -> int:
    """How many bytes the datasets of an HDF5 file take, by what it says of them: none is read."""
    import h5py  # Keras brings it along

    sizes: list[int] = []
    with h5py.File(file, "r") as opened:
        opened.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def gzip_size(content: bytes) -> int:
    """Return how many bytes `content` takes compressed: what a download costs, and where zeros show.

    Args:
        content: The bytes of a file.

    Returns:
        The size in bytes at gzip's level 9; the same for the same content, on any day.

    Example:

    >>> gzip_size(bytes(1000)) < 50
    True
    """
    return len(gzip.compress(content, compresslevel=9, mtime=0))


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}-{threading.get_native_id()}.partial")
