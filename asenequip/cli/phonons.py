"""``asenequip phonons``: lattice dynamics of a crystal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import Debug, Device, Dtype, Model, open_calculator
from asenequip.cli.crystal import (
    Fmax,
    Folder,
    Relax,
    Structure,
    Supercell,
    read_crystal,
    repeats,
    results_folder,
)
from asenequip.files import refuse_existing

if TYPE_CHECKING:
    from asenequip.properties import Phonons


def phonons(
    structure: Structure,
    output: Folder,
    model: Model = None,
    supercell: Supercell = None,
    method: Annotated[
        str, typer.Option("--method", help="displacements (finite differences) or hessian (exact).")
    ] = "displacements",
    distance: Annotated[float, typer.Option("--distance", help="Displacement, Angstrom.")] = 0.01,
    order: Annotated[int, typer.Option("--order", help="Accuracy of the differences: 2, 4 or 6.")] = 2,
    mesh: Annotated[int, typer.Option("--mesh", help="Wave vectors along each axis.")] = 20,
    born: Annotated[
        Path | None, typer.Option("--born", help="phonopy's BORN file, for polar crystals.", show_default=False)
    ] = None,
    gruneisen: Annotated[bool, typer.Option("--gruneisen", help="Gruneisen parameters too.")] = False,
    quasiharmonic: Annotated[bool, typer.Option("--quasiharmonic", help="Thermal expansion too.")] = False,
    relax: Relax = True,
    fmax: Fmax = 1e-4,
    device: Device = "auto",
    dtype: Dtype = "float64",
    debug: Debug = False,
) -> None:
    """Phonons: bands, density of states, thermal properties, and the files that phonopy reads.

    The folder gets phonopy_params.yaml, FORCE_CONSTANTS and, from displacements, FORCE_SETS; tables and figures; the
    crystal. `phonopy-load FOLDER/phonopy_params.yaml` goes on from there.
    """
    from asenequip import properties

    refuse_existing(output)
    options: dict[str, Any] = {"supercell": repeats(supercell), "method": method, "distance": distance, "order": order}
    calculator = open_calculator(model, device, dtype)
    atoms = read_crystal(structure, calculator, relax, fmax)
    found = properties.phonons(atoms, calculator, born=born, **options)
    typer.echo(_text(found))
    with results_folder(output, atoms) as folder:
        found.write(folder, mesh=mesh)
        if gruneisen:
            properties.gruneisen(atoms, calculator, mesh=mesh, **options).write(folder)
        if quasiharmonic:
            properties.quasiharmonic(atoms, calculator, mesh=mesh, **options).write(folder)


def _text(found: Phonons) -> str:
    phonopy = found.phonopy
    modes = " ".join(f"{frequency:.4f}" for frequency in found.frequencies([0.0, 0.0, 0.0])[0][3:])
    group = phonopy.symmetry.dataset.international
    source = "the Hessian" if found.method == "hessian" else f"{found.evaluations} displaced supercells"
    return "\n".join(
        [
            f"Force constants of {len(phonopy.supercell)} atoms, {group}, from {source}.",
            f"Largest force in the crystal {found.residual_force:.1e} eV/A; acoustic sum rule off by "
            f"{found.drift:.1e} eV/A^2 as calculated, {found.enforced_drift:.1e} now.",
            f"Optical modes at the zone centre (THz): {modes or 'none'}",
        ]
    )
