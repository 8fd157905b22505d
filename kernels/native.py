"""Kernels for the CPU: generated C++, compiled at first use, kept in the user's cache, called through ctypes."""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from asenequip.files import mark_used, remove_oldest
from asenequip.kernels.generate import DOUBLE, SINGLE, cpu_source
from asenequip.kernels.polynomial import parse

Run = Callable[..., int]
"""run(operands, outputs, ptr, n, z or chunk length, U, threads) -> 0, or 1 where ptr does not span the edges."""

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
# Tuning and threads, best first.
_ATTEMPTS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
_ROOM = 8 << 20
"""Bytes that a folder must have room for before anything is compiled there, several times what one library takes."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

CACHE_BYTES = 2 << 30
"""Most bytes in each folder of the cache; beyond it, those files that were used longest ago are removed."""

_LOADED: set[Path] = set()
"""Libraries that this process runs, which it does not remove: they stay loaded as long as it lasts."""


def cache_directory() -> Path:
    """Where compiled kernels are kept: ``ASENEQUIP_CACHE``, or the platform's cache directory for the user."""
    chosen = os.environ.get("ASENEQUIP_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local")))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "asenequip"


@functools.lru_cache(maxsize=1)
def compiler() -> tuple[str, ...] | None:
    """The C++ compiler as a command: ``CXX`` if set, else g++ or clang++ on the PATH; None if there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        command = tuple(shlex.split(name)) if name else ()
        if command and shutil.which(command[0]):
            return command
    return None


@functools.lru_cache(maxsize=1)
def available() -> bool:
    """Whether CPU kernels can be compiled here; says so once if not."""
    if compiler() is not None and sys.platform != "win32":
        return True
    warnings.warn(
        "No C++ compiler was found, so the tensor track runs in plain torch operations: same numbers, slower. "
        "Install g++ or clang++, or name one in the environment variable CXX.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


@functools.lru_cache(maxsize=1024)
def load(text: str, dtype: torch.dtype) -> Run | None:
    """The compiled kernel of the polynomial ``text`` in float32 or float64; None, said once, if compiling fails."""
    if not available():
        return None
    source = cpu_source(parse(text), SINGLE if dtype == torch.float32 else DOUBLE)
    try:
        library = compile_library(source)
    except (OSError, subprocess.SubprocessError) as error:
        _warn_failure(str(error))
        return None
    run = library.run
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    run.argtypes = (pointer, pointer, pointer, integer, integer, integer, ctypes.c_int)
    run.restype = ctypes.c_int
    return run


@functools.lru_cache(maxsize=1)
def _warn_failure(message: str) -> None:
    warnings.warn(
        "The CPU kernels could not be compiled, so the tensor track runs in plain torch operations: same numbers, "
        f"slower. {message}",
        RuntimeWarning,
        stacklevel=3,
    )


@functools.lru_cache(maxsize=1)
def toolchain() -> str:
    """What a compiled kernel depends on besides its source: compiler, flags, and the processor's features.

    Raises
    ------
    OSError
        If there is no compiler.
    """
    command = compiler()
    if command is None:
        remedy = "Install g++ or clang++, or name one in the environment variable CXX."
        raise FileNotFoundError(f"No C++ compiler was found. {remedy}")
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    features = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            wanted = ("model name", "flags", "Features", "CPU part")
            lines = {line.strip() for line in file if line.startswith(wanted)}
            features += "".join(sorted(lines))
    except OSError:
        pass
    return "\n".join([version, repr((_FLAGS, _ATTEMPTS)), features])


def compile_library(source: str) -> ctypes.CDLL:
    """The shared library of a C++ source, from the cache or compiled now.

    Raises
    ------
    OSError
        If there is no compiler, or it fails, or there is no room for what it writes.
    """
    key = hashlib.sha256((source + toolchain()).encode()).hexdigest()[:32]
    directory = writable_folder("kernels").absolute()
    for path in sorted(directory.glob(f"{key}-*.so")):
        try:
            if path.stem == f"{key}-{_content(path)}":  # the system would crash on one that is cut off
                library = ctypes.CDLL(str(path))
                _LOADED.add(path)
                mark_used(path)
                return library
        except OSError:  # built elsewhere, or gone by now: built anew below
            continue
    return _build(source, _with_room(directory), key)


def writable_folder(name: str) -> Path:
    """A folder of the cache, or one that lasts as long as the process where the cache cannot be written."""
    folder = cache_directory() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary_directory()


def _with_room(folder: Path) -> Path:
    """The folder, or the one that lasts as long as the process where the folder's disk is full."""
    for choose in (lambda: folder, _temporary_directory):
        try:
            with tempfile.NamedTemporaryFile(dir=choose()) as file:  # a quota shows only when it is written to
                file.write(bytes(_ROOM))
            return choose()
        except OSError as error:
            if error.errno not in _FULL:
                raise
    raise OSError(
        errno.ENOSPC,
        f"The disk is full: neither '{folder}' nor '{tempfile.gettempdir()}' has the {_ROOM >> 20} MB that compiling "
        "takes. Free some, or name another folder in the environment variable ASENEQUIP_CACHE",
    )


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _temporary_directory() -> Path:
    folder = tempfile.mkdtemp(prefix="asenequip-kernels-")
    atexit.register(_remove, folder, os.getpid())
    return Path(folder)


def _remove(folder: str, owner: int) -> None:
    """Remove a folder at the end of the process that made it, not of one that was forked from that."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _build(source: str, directory: Path, key: str) -> ctypes.CDLL:
    """Compile, check that it loads, and move into place in one step, under a name that tells the content."""
    command = compiler() or ()
    with tempfile.TemporaryDirectory(dir=directory, prefix="build-") as folder:
        text, target = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        text.write_text(source, encoding="utf-8")
        failure = "no attempt was made"
        environment = {**os.environ, "TMPDIR": folder}  # what the compiler writes in between goes where there is room
        for extra in _ATTEMPTS:
            line = [*command, *_FLAGS, *extra, str(text), "-o", str(target)]
            result = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                failure = result.stderr.strip()[-500:]
                continue
            try:
                library = ctypes.CDLL(str(target))
            except OSError as error:
                failure = str(error)
                continue
            kept = directory / f"{key}-{_content(target)}.so"
            os.replace(target, kept)
            _LOADED.add(kept)
            remove_oldest(directory, CACHE_BYTES, keep=_LOADED)
            return library
    raise OSError(f"{shlex.join(command)} failed: {failure}")
