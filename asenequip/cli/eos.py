"""``asenequip eos``: equation of state of a crystal."""

from __future__ import annotations

from typing import Annotated

import typer

from asenequip.cli.common import Debug, Device, Dtype, Model, open_calculator
from asenequip.cli.crystal import Fmax, Folder, Relax, Structure, read_crystal, results_folder
from asenequip.files import refuse_existing


def eos(
    structure: Structure,
    output: Folder,
    model: Model = None,
    span: Annotated[float, typer.Option("--span", help="Largest relative change of the volume.")] = 0.06,
    points: Annotated[int, typer.Option("--points", help="Volumes.")] = 11,
    at_volume: Annotated[
        str, typer.Option("--at-volume", help="What relaxes at each volume: none, ions or shape.")
    ] = "ions",
    relax: Relax = True,
    fmax: Fmax = 1e-3,
    device: Device = "auto",
    dtype: Dtype = "float64",
    debug: Debug = False,
) -> None:
    """Energy against volume and the Birch-Murnaghan equation of state."""
    from asenequip.properties import equation_of_state

    refuse_existing(output)
    calculator = open_calculator(model, device, dtype)
    atoms = read_crystal(structure, calculator, relax, fmax)
    found = equation_of_state(atoms, calculator, span=span, points=points, relax=at_volume, fmax=fmax)
    typer.echo(
        f"Volume {found.volume:.4f} A^3/atom, energy {found.energy:.6f} eV/atom, bulk modulus "
        f"{found.bulk_modulus:.2f} GPa, its pressure derivative {found.bulk_derivative:.2f}"
    )
    with results_folder(output, atoms) as folder:
        found.write(folder)
