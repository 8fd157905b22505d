"""``asenequip elastic``: elastic tensor of a crystal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asenequip.cli.common import Debug, Device, Dtype, Model, open_calculator
from asenequip.cli.crystal import Fmax, Folder, Relax, Structure, read_crystal, results_folder
from asenequip.files import refuse_existing

if TYPE_CHECKING:
    from asenequip.properties import ElasticTensor


def elastic(
    structure: Structure,
    output: Folder,
    model: Model = None,
    strain: Annotated[float, typer.Option("--strain", help="Largest strain; half of it and both signs too.")] = 0.01,
    clamped: Annotated[bool, typer.Option("--clamped", help="Do not relax the atoms in the strained cells.")] = False,
    relax: Relax = True,
    fmax: Fmax = 1e-4,
    device: Device = "auto",
    dtype: Dtype = "float64",
    debug: Debug = False,
) -> None:
    """Elastic tensor, averaged moduli and stability, in the Cartesian axes of the cell."""
    from asenequip.properties import elastic_tensor

    refuse_existing(output)
    calculator = open_calculator(model, device, dtype)
    atoms = read_crystal(structure, calculator, relax, fmax)
    strains = (-strain, -strain / 2, strain / 2, strain)
    found = elastic_tensor(atoms, calculator, strains=strains, relax_ions=not clamped, fmax=fmax)
    typer.echo(_text(found))
    with results_folder(output, atoms) as folder:
        found.write(folder)


def _text(found: ElasticTensor) -> str:
    rows = [" ".join(f"{value:9.3f}" for value in row) for row in found.tensor]
    lines = [f"Elastic tensor (GPa; xx yy zz yz xz xy), {found.space_group}:", *rows]
    if not found.stable:
        return "\n".join([*lines, "Not stable: some strain lowers the energy."])
    means = found.moduli
    return "\n".join(
        [
            *lines,
            f"Bulk modulus {means.bulk:.2f}, shear modulus {means.shear:.2f}, Young's modulus {means.young:.2f} GPa "
            f"(Hill); Poisson's ratio {means.poisson:.3f}; anisotropy {means.anisotropy:.3f}",
            f"Stress of the unstrained crystal up to {abs(found.residual_stress).max():.2g} GPa; "
            f"misfit {found.misfit:.2g} GPa",
        ]
    )
