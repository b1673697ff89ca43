"""Files written whole or not at all: an interrupted write, a kill or a full disk leaves the old file as it was.

The bytes go to a hidden file beside, are forced to the disk, and the name is then moved over in one step (POSIX rename).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends and is dropped if it fails.

    Raises OSError that names the file, what failed and that the old one is whole.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")  # one name for all attempts, so that kills leave no heap of them
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        old = "the file that was there is unchanged" if path.exists() else "nothing was left behind"
        sentence = f"{path} could not be written ({error.strerror or error}); {old}. Make room or choose another folder."
        raise OSError(sentence) from error


def write_atomically(path: Path | str, data: bytes) -> None:
    """Put data in the file, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def _sync_folder(folder: Path) -> None:
    """Force the new name itself to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
