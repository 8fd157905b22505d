"""What the verbs on properties of crystals share: their flags, the crystal relaxed first, a folder of results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asenequip.cli.common import read_frames

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

Structure = Annotated[Path, typer.Argument(help="Crystal, in any format of ASE's; its last structure.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write, new.", show_default=False)]
Relax = Annotated[bool, typer.Option("--relax/--no-relax", help="Relax cell and atoms first, keeping the space group.")]
Fmax = Annotated[float, typer.Option("--fmax", help="Largest force after relaxation, eV/Angstrom.")]
Supercell = Annotated[
    str | None,
    typer.Option("--supercell", help="Repeats, as 3 or 2,2,1; else 12 Angstrom or more.", show_default=False),
]

_STEPS = 500
"""Most steps of the relaxation that comes before anything else."""


def read_crystal(path: Path, calculator: BaseCalculator, relax_first: bool, fmax: float) -> Atoms:
    """The last structure of a file, relaxed with its space group kept where that is wanted."""
    atoms = read_frames(path, "-1:")[0]
    if not relax_first:
        return atoms
    from asenequip.properties.evaluation import relaxed

    name = f"crystal of '{path}', structure"
    atoms = relaxed([atoms], calculator, name, fmax=fmax, steps=_STEPS, cell="full", keep_symmetry=True)[0]
    volume, energy = atoms.get_volume() / len(atoms), float(atoms.get_potential_energy()) / len(atoms)
    typer.echo(f"Relaxed to {fmax:g} eV/A: {volume:.4f} A^3 and {energy:.6f} eV per atom.")
    return atoms


@contextmanager
def results_folder(path: Path, atoms: Atoms) -> Iterator[Path]:
    """A folder that appears whole or not at all, with the crystal in it."""
    from ase.io import write

    from asenequip.files import new_folder

    with new_folder(path) as folder:
        write(str(folder / "structure.extxyz"), atoms, format="extxyz")
        yield folder
    typer.echo(f"Written to {path}: {', '.join(sorted(file.name for file in path.iterdir()))}")


def repeats(text: str | None) -> int | list[int] | None:
    """Repeats of a supercell, from "3" or "2,2,1"."""
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or min(numbers) < 1:
        raise ValueError(f"--supercell must be one or three positive integers, as 3 or 2,2,1. Got '{text}' instead.")
    return numbers if len(numbers) == 3 else numbers[0]
