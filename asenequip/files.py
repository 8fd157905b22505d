"""Writing files whole or not at all, removing old ones, and holding what one process at a time may use."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def refuse_existing(*paths: Path) -> None:
    """Refuse names of which one is taken, before anything is written under the others.

    Raises
    ------
    FileExistsError
        For the first that is.
    """
    for path in paths:
        if path.exists():
            raise name_taken(path)


def name_taken(path: Path) -> FileExistsError:
    """The error for a file or folder that is there already."""
    return FileExistsError(f"'{path}' exists and is not overwritten. Choose another name or move it away.")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet.

    Raises
    ------
    FileExistsError
        If the name is taken, also if it was taken while the data were written.
    """
    with _written_beside(path, data) as temporary:
        give_name(temporary, path)


def give_name(temporary: Path, path: Path) -> None:
    """Give a finished file the name that it was made for; the temporary name may be left.

    Raises
    ------
    FileExistsError
        If the name was taken meanwhile.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise name_taken(path) from None
    except OSError:  # a file system without hard links
        refuse_existing(path)
        os.replace(temporary, path)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in the place of an earlier one of the same run, which stays until the new one is complete."""
    with _written_beside(path, data) as temporary:
        os.replace(temporary, path)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write into that takes its name only when everything is in it.

    Raises
    ------
    FileExistsError
        If the name is taken, before any work is done or at the end.
    """
    path = Path(path)
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.") as beside:
        folder = Path(beside) / "folder"
        folder.mkdir()
        yield folder
        try:
            os.rename(folder, path)
        except OSError:
            refuse_existing(path)
            raise
    _sync_folder(path.parent)


@contextmanager
def locked(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold a file; the system lets go of it when the process ends, however it ends.

    Where there are no such locks, as on some file systems of clusters, nothing is held and nothing refused.

    Parameters
    ----------
    path : Path
        Made if it is not there; its folder must be.
    refusal : Exception
        Raised if another process holds it.
    """
    with open(path, "a") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except (ImportError, OSError):  # no such locks on this system, or on this file system
            pass
        yield


def mark_used(path: Path) -> None:
    """Let a file count as used now, for `remove_oldest`; where that is not allowed its time stays."""
    with suppress(OSError):
        os.utime(path)


def remove_oldest(folder: Path, most_bytes: int, keep: Collection[Path] = ()) -> None:
    """Remove those files of a folder that were used longest ago, as their times say, until the others fit.

    What cannot be listed or removed stays: a cache that grows is no error.

    Parameters
    ----------
    folder : Path
    most_bytes : int
        Most bytes of the files that stay. Where none is to be kept, the newest stays however large it is.
    keep : collection of Path
        Files of the folder that stay in any case, and whose bytes count before those of the others.
    """
    files = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # removed by another process meanwhile
                status = path.stat()
                if path.is_file():
                    files.append((path not in keep, -status.st_mtime, status.st_size, path))
    total = 0
    for place, (removable, _, size, path) in enumerate(sorted(files)):
        total += size
        if place and removable and total > most_bytes:
            with suppress(OSError):
                path.unlink()


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file in the same folder that holds the data, on the disk; gone afterwards.

    Its permissions are those that the system gives any new file, by the user's umask; tempfile's are the owner's alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened on some systems
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
