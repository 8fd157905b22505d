"""Make frames of Li | Li6PS5Cl interfaces and of the phases that may form there, labelled by GFN1-xTB.

The interface cells of 90 to 120 atoms are built by `asenequip.interface`; the first ones are rattled, later ones are
heated by a potential that was trained on the earlier frames. Labels are those of the frames that the package ships
(examples/make_li6ps5cl_data.py): GFN1-xTB at the Gamma point, so that both can be trained on together. Everything is
kept in one ASE database; what it holds already is not computed again.

    python examples/make_interface_data.py rattle frames.db
    python examples/make_interface_data.py gather frames.db first.extxyz.gz
    asenequip-train examples/interface.yaml --set data.train=first.extxyz.gz --set output=runs/first
    python examples/make_interface_data.py heat frames.db runs/first/model.asnq
    python examples/make_interface_data.py gather frames.db second.extxyz.gz
    asenequip-train examples/interface.yaml --set data.train=second.extxyz.gz --set output=runs/second

The Gamma point is a rough sampling for a metal in cells of 10 Angstrom: it is one level of theory for reaction and
diffusion at the interface, not a reference for the elasticity of lithium.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase import Atoms
from ase.db import connect
from ase.io import read
from make_li6ps5cl_data import label, write_frames

from asenequip.interface import Side, build_interface, make_crystal

SEED = 2026
BULK = (("Li", 3, 5), ("Li2S", 2, 3), ("LiCl", 2, 2), ("Li3P", 2, 3))
"""Crystal, repeats along each axis, frames."""
INTERFACES = 12
"""Rattled interface cells."""
TEMPERATURES = (300.0, 600.0, 900.0)  # K
TIMESTEP = 1.0  # fs

app = typer.Typer(add_completion=False, help=__doc__)


def interface_cell(number: int) -> Atoms:
    """An interface cell of its own: termination, gap, exchange of S and Cl, strain and rattling by its number."""
    rng = np.random.default_rng([SEED, number])
    atoms = build_interface(
        Side("Li", thickness=float(rng.choice([10.5, 14.0])), vacancies=float(rng.choice([0.0, 0.04]))),
        Side("Li6PS5Cl", thickness=9.9, termination=int(rng.integers(4)), exchange=(1, 3, float(rng.choice([0, 0.5])))),
        gap=float(rng.uniform(1.8, 2.6)),
        min_distance=1.9,
        seed=number,
    )
    return strained(atoms, rng)


def bulk_cell(name: str, repeats: int, number: int) -> Atoms:
    """A crystal, strained and rattled by its number."""
    atoms = make_crystal(name)
    atoms = atoms.repeat((repeats, repeats, 1) if name == "Li2S" else repeats)
    return strained(atoms, np.random.default_rng([SEED, 1000 + number]))


def strained(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy with a random small strain, its atoms moved by a random amplitude."""
    moved = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    strain = rng.normal(scale=0.012, size=(3, 3))
    moved.set_cell(moved.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    moved.positions += rng.normal(scale=rng.uniform(0.03, 0.2), size=moved.positions.shape)
    return moved


def add_missing(database: Path, wanted: Iterator[tuple[str, Callable[[], Atoms]]]) -> None:
    """Label what the database does not hold yet; a frame whose charges do not converge is recorded as failed."""
    with connect(str(database)) as db:
        there = {row.get("key") for row in db.select()}
    for key, make in wanted:
        if key in there:
            continue
        start = time.perf_counter()
        atoms = make()
        try:
            frame, failed = label(atoms), False
        except Exception as error:  # noqa: BLE001  (tblite raises its own kinds; one bad frame must not end the work)
            typer.echo(f"{key}: not labelled, {error}")
            frame, failed = atoms, True
        with connect(str(database)) as db:
            db.write(frame, key=key, failed=failed, method="GFN1-xTB")
        typer.echo(f"{key}: {len(frame)} atoms, {time.perf_counter() - start:.0f} s")


@app.command()
def rattle(database: Annotated[Path, typer.Argument(help="ASE database, made or gone on with.")]) -> None:
    """Label rattled interface cells and crystals."""

    def wanted() -> Iterator[tuple[str, Callable[[], Atoms]]]:
        for name, repeats, frames in BULK:
            for number in range(frames):
                yield f"{name}-{number}", lambda n=name, r=repeats, k=number: bulk_cell(n, r, k)
        for number in range(INTERFACES):
            yield f"interface-{number}", lambda k=number: interface_cell(k)

    add_missing(database, wanted())


@app.command()
def heat(
    database: Annotated[Path, typer.Argument(exists=True, help="The database to go on with.")],
    potential: Annotated[Path, typer.Argument(exists=True, help="A potential, a .asnq file.")],
    cells: Annotated[int, typer.Option(min=1, help="Interface cells that are heated.")] = 6,
    frames: Annotated[int, typer.Option(min=1, help="Frames labelled of each.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 1 fs between them.")] = 400,
    first: Annotated[int, typer.Option(min=0, help="Number of the first cell; another one in each round.")] = 100,
) -> None:
    """Heat interface cells with a potential and label frames of their dynamics."""
    from asenequip import AllegroCalculator
    from asenequip.md import Unstable, run_md

    calculator = AllegroCalculator(potential)
    for number in range(first, first + cells):
        atoms, seen = interface_cell(number), 0
        for frame in range(frames):
            try:
                atoms = run_md(
                    atoms,
                    calculator,
                    steps=steps,
                    timestep=TIMESTEP,
                    temperature=TEMPERATURES[number % len(TEMPERATURES)],
                    damping=50.0,
                    seed=number * 100 + frame,
                )
            except Unstable as error:
                typer.echo(f"hot-{number}: {str(error).splitlines()[0]}")
                break
            seen += 1
            add_missing(database, iter([(f"hot-{number}-{frame}", atoms.copy)]))
        typer.echo(f"hot-{number}: {seen} of {frames} frames")


@app.command()
def gather(
    database: Annotated[Path, typer.Argument(exists=True, help="The database.")],
    output: Annotated[Path, typer.Argument(help="File to make, *.extxyz.gz.")],
) -> None:
    """Join the labelled frames with those that the package ships; every sixth of the new ones is for validation."""
    with as_file(files("asenequip.data") / "li6ps5cl_gfn1.extxyz.gz") as path:
        frames: list[Atoms] = read(path, index=":")
    with connect(str(database)) as db:
        rows = sorted((row for row in db.select(failed=False)), key=lambda row: row.key)
    for number, row in enumerate(rows):
        frame = row.toatoms()
        frame.info = {"split": "valid" if number % 6 == 5 else "train", "origin": row.key, "method": "GFN1-xTB"}
        frames.append(frame)
    write_frames(output, frames)
    typer.echo(f"{len(rows)} new frames, {len(frames)} in all: {output}")


if __name__ == "__main__":
    app()
