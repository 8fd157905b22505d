"""``asenequip relax``: relax one or many structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asenequip.cli.common import (
    SOME_FAILED,
    Debug,
    Device,
    Dtype,
    Index,
    Model,
    Output,
    Progress,
    check_output,
    number_in_file,
    open_calculator,
    read_frames,
    write_frames,
)
from asenequip.interrupt import Interrupted, stop_on_signal

if TYPE_CHECKING:
    from ase import Atoms

    from asenequip.relax import Relaxation


def relax(
    structures: Annotated[Path, typer.Argument(help="Structures, in any format of ASE's.")],
    output: Output,
    model: Model = None,
    index: Index = ":",
    fmax: Annotated[float, typer.Option("--fmax", help="Largest force at the end, eV/Angstrom.")] = 0.01,
    steps: Annotated[int, typer.Option("--steps", help="Steps at most, for each structure.")] = 500,
    cell: Annotated[
        str, typer.Option("--cell", help="How the cell may change: fixed, isotropic, shape or full.")
    ] = "fixed",
    pressure: Annotated[float, typer.Option("--pressure", help="External pressure on a moving cell, GPa.")] = 0.0,
    optimizer: Annotated[str, typer.Option("--optimizer", help="lbfgs, bfgs or fire, of ASE's.")] = "lbfgs",
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Keep the space group (needs spglib).")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Relax structures, all at once and in order; constraints in the file hold.

    Each structure of the output says in info whether it has converged (relax_converged), after how many steps
    (relax_steps), and its largest force (relax_max_force). One that cannot be evaluated is named and left out. For an
    fmax below 0.001 take --dtype float64.
    """
    from asenequip.relax import relax as run

    check_output(output)
    frames = read_frames(structures, index)
    calculator = open_calculator(model, device, dtype)
    with Progress("Relaxed", len(frames)) as progress, stop_on_signal() as stop:
        entries = run(
            frames,
            calculator,
            fmax=fmax,
            steps=steps,
            cell=cell,
            pressure=pressure,
            optimizer=optimizer,
            keep_symmetry=keep_symmetry,
            stop=stop,
            watch=lambda now: progress.show(now["done"], f"step {now['step']}, {now['failed']} failed"),
        )
    for k, entry in enumerate(entries):
        if entry.error:
            typer.echo(f"{structures}, structure {number_in_file(index, k)}: {entry.error}", err=True)
    good = [_labelled(entry) for entry in entries if not entry.error]
    if not good:
        raise ValueError(
            f"None of the {len(entries)} structures of '{structures}' could be evaluated; nothing is written."
        )
    write_frames(output, good)
    converged = sum(entry.converged for entry in entries)
    typer.echo(f"{converged} of {len(entries)} structures have converged to {fmax:g} eV/A; {output} holds {len(good)}.")
    if stop:
        raise Interrupted(f"Stopped. To go on: asenequip relax {output} with the same options and another --output.")
    if converged < len(entries):
        raise typer.Exit(SOME_FAILED)


def _labelled(entry: Relaxation) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = entry.atoms.copy()
    atoms.info.update(
        relax_converged=entry.converged, relax_steps=entry.steps, relax_max_force=round(entry.max_force, 9)
    )
    if entry.atoms.calc is not None:
        results = entry.atoms.calc.results
        chosen = {name: results[name] for name in ("energy", "forces", "stress") if results.get(name) is not None}
        atoms.calc = SinglePointCalculator(atoms, **chosen)
    return atoms
