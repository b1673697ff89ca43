"""Files are written whole or not at all: a temporary file beside the target takes its place only once it is on the disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which replaces `path` when the block ends well.

    However the block ends otherwise, killed included, the old file stays whole. Where the process lives on, the
    temporary file is removed; where it does not, the next write to the same path takes it over.
    Raises OSError, naming the path, where the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            state = "the old file is unchanged" if path.exists() else "nothing was written"
            raise OSError(error.errno, f"{path} could not be written ({error.strerror or error}); {state}") from error
        raise


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace a file's content by data, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system has such a call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
