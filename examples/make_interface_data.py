"""Make the frames on which a potential learns Li | Li6PS5Cl: small enough for a density functional, 8 to 62 atoms.

    python examples/make_interface_data.py start start.extxyz              # rattled, interdiffused, crystals
    python examples/make_interface_data.py heat model.asnq heated.extxyz   # what a first potential runs into
    python examples/make_interface_data.py gather labels.db labelled.extxyz.gz

The first two make geometries. Labels come from `asenequip label --store labels.db`, by GPAW for instance
(examples/gpaw_labels.py); which of the heated frames deserve one says `asenequip select`. The last one joins all labels
of a store; asenequip/data/li_argyrodite_pbe.extxyz.gz came out of it. The page on the interphase has all commands.

The crystals are there so that the set has its own energies of the elements, and anchors on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase import Atoms
from ase.build import cut
from ase.io import write
from make_li6ps5cl_data import write_frames

from asenequip.interface import Side, build_interface, make_crystal, occupy

SEED = 2026
CRYSTALS = (("Li", 2, 2), ("Li6PS5Cl", 1, 2), ("Li2S", 1, 1), ("LiCl", 1, 1), ("Li3P", 1, 1))
"""Name, repeats along each axis, frames."""
MILLER = {"Li6PS5Cl": ((0, 1, 1), (1, 1, 2)), "Li2S": ((1, 0, 0), (1, 1, 0)), "LiCl": ((1, 0, 0), (1, 1, 0))}
"""Planes of each compound that meet (100) and (110) of lithium; those of Li6PS5Cl are (100) and (110) of its
conventional cell, in the vectors of the primitive one."""
ELECTROLYTES = ("Li6PS5Cl", "Li2S", "Li6PS5Cl", "LiCl", "Li6PS5Cl", "Li3P")
"""Against lithium, in turn."""
INTERFACES = 16
THICK = (0, 2)
"""Interfaces with two layers of Li6PS5Cl; the others have one."""
TEMPERATURES = (300.0, 600.0, 900.0)  # K

app = typer.Typer(add_completion=False, help=__doc__)


def argyrodite() -> Atoms:
    """The primitive cell of Li6PS5Cl, 13 atoms once its sites are occupied."""
    primitive = cut(make_crystal("Li6PS5Cl"), a=(0, 0.5, 0.5), b=(0.5, 0, 0.5), c=(0.5, 0.5, 0))
    primitive.pbc = True
    return primitive


def interface_cell(number: int) -> Atoms:
    """An interface of its own: compound, plane, termination, gap and exchange of S and Cl by its number."""
    rng = np.random.default_rng([SEED, number])
    name = ELECTROLYTES[number % len(ELECTROLYTES)]
    plane = number // len(ELECTROLYTES) % 2
    lithium = ((1, 0, 0), (1, 1, 0))[plane]
    if name == "Li6PS5Cl":
        compound = Side(
            argyrodite(),
            MILLER[name][plane],
            thickness=12.0 if number in THICK else 6.0,
            termination=int(rng.integers(3)),
            exchange=(1, 3, float(rng.choice([0.0, 0.5]))),
        )
    elif name == "Li3P":
        compound, lithium = Side(name, (1, 1, 0), thickness=6.0), (1, 0, 0)
    else:
        compound = Side(name, MILLER[name][plane], thickness=6.0)
    return build_interface(
        Side("Li", lithium, thickness=8.0, vacancies=float(rng.choice([0.0, 0.06]))),
        compound,
        gap=float(rng.uniform(1.8, 2.6)),
        max_misfit=0.09,
        max_area=110.0,
        seed=number,
    )


def interdiffused(atoms: Atoms, share: float, rng: np.random.Generator) -> Atoms:
    """A copy in which a share of the atoms of the compound's non-metals have changed places with lithium."""
    mixed = atoms.copy()
    is_lithium = atoms.symbols == "Li"
    lithium, others = np.flatnonzero(is_lithium), np.flatnonzero(~is_lithium)
    count = round(share * len(others))
    one, two = rng.choice(lithium, count, replace=False), rng.choice(others, count, replace=False)
    mixed.numbers[one], mixed.numbers[two] = atoms.numbers[two], atoms.numbers[one]
    return mixed


def strained(atoms: Atoms, rng: np.random.Generator, largest: float) -> Atoms:
    """A copy with a random small strain, its atoms moved by a random amplitude of at most ``largest`` Angstrom."""
    moved = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    strain = rng.normal(scale=0.012, size=(3, 3))
    moved.set_cell(moved.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    moved.positions += rng.normal(scale=rng.uniform(0.03, largest), size=moved.positions.shape)
    return moved


def rattled_interface(number: int) -> Atoms:
    """The interface of a number, rattled; every third one is interdiffused before."""
    rng = np.random.default_rng([SEED, 1000 + number])
    atoms = interface_cell(number)
    return strained(interdiffused(atoms, 0.2, rng) if number % 3 == 2 else atoms, rng, 0.2)


def crystal_cell(name: str, repeats: int, number: int) -> Atoms:
    """A crystal, rattled by its number."""
    rng = np.random.default_rng([SEED, 2000 + number])
    crystal = argyrodite() if name == "Li6PS5Cl" else make_crystal(name)
    return strained(occupy(crystal, rng).repeat(repeats), rng, 0.15)


def starts() -> Iterator[tuple[str, Callable[[], Atoms]]]:
    """Name and maker of each frame; crystals and interfaces take turns, so that any first part is a set."""
    crystals = [(f"{n}-{k}", lambda n=n, r=r, k=k: crystal_cell(n, r, k)) for n, r, f in CRYSTALS for k in range(f)]
    both = [(f"interface-{k}", lambda k=k: rattled_interface(k)) for k in range(INTERFACES)]
    for number, interface in enumerate(both):
        yield interface
        if number % 2 == 0 and number // 2 < len(crystals):
            yield crystals[number // 2]


@app.command()
def start(output: Annotated[Path, typer.Argument(help="File to make, *.extxyz.")]) -> None:
    """Make rattled interfaces and crystals."""
    frames = []
    for name, make in starts():
        frames.append(make())
        frames[-1].info = {"origin": name}
    write(output, frames)
    typer.echo(f"{len(frames)} frames of {min(map(len, frames))} to {max(map(len, frames))} atoms: {output}")


@app.command()
def heat(
    potential: Annotated[Path, typer.Argument(exists=True, help="A potential, a .asnq file.")],
    output: Annotated[Path, typer.Argument(help="File to make, *.extxyz.")],
    cells: Annotated[int, typer.Option(min=1, help="Interface cells that are heated.")] = 12,
    frames: Annotated[int, typer.Option(min=1, help="Frames kept of each.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 1 fs between them.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="Number of the first cell; another one in each round.")] = 100,
) -> None:
    """Heat interface cells with a potential and keep frames of their dynamics."""
    from asenequip import AllegroCalculator
    from asenequip.md import Unstable, run_md

    calculator, kept = AllegroCalculator(potential), []
    for number in range(first, first + cells):
        atoms, kelvin = interface_cell(number), TEMPERATURES[number % len(TEMPERATURES)]
        for frame in range(frames):
            options = {"timestep": 1.0, "temperature": kelvin, "damping": 50.0, "seed": number * 100 + frame}
            try:
                atoms = run_md(atoms, calculator, steps=steps, **options)
            except Unstable as error:
                typer.echo(f"hot-{number}: {str(error).splitlines()[0]}")
                break
            bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
            bare.info = {"origin": f"hot-{number}-{frame}", "temperature": kelvin}
            kept.append(bare)
    write(output, kept)
    typer.echo(f"{len(kept)} frames: {output}")


@app.command()
def gather(
    store: Annotated[Path, typer.Argument(exists=True, help="Labels, the database of `asenequip label`.")],
    output: Annotated[Path, typer.Argument(help="File to make, *.extxyz.gz.")],
) -> None:
    """Join the labels, in the order in which they were made."""
    from asenequip.active import LabelStore

    frames = LabelStore(store).frames()
    for atoms in frames:
        atoms.info = {"origin": atoms.info["origin"]}
    write_frames(output, frames)
    typer.echo(f"{len(frames)} frames: {output}")


if __name__ == "__main__":
    app()
