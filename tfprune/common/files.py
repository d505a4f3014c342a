"""Writing files so that a reader never finds half of one."""

import gzip
import os
from pathlib import Path


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
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


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
    return target.with_name(f".{target.name}.{os.getpid()}.partial")
