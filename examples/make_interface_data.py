"""Make the frames on which a potential learns Li | Li6PS5Cl: small enough for a density functional, 8 to 62 atoms.

    python examples/make_interface_data.py start start.extxyz              # rattled, interdiffused, crystals
    python examples/make_interface_data.py heat model.asnq heated.extxyz   # interfaces that a potential runs into
    python examples/make_interface_data.py warm model.asnq warmed.extxyz   # strained crystals, some with defects
    python examples/make_interface_data.py mix model.asnq mixed.extxyz     # packings like what an interface becomes
    python examples/make_interface_data.py gather labels.db labelled.extxyz.gz
    python examples/make_interface_data.py split labelled.extxyz.gz learn.extxyz judge.extxyz

The first four make geometries. Labels come from `asenequip label --store labels.db`, by GPAW for instance
(examples/gpaw_labels.py); which of many frames deserve one says `asenequip select`. `gather` joins all labels of a
store; asenequip/data/li_argyrodite_pbe.extxyz.gz came out of it. `split` holds frames back for judging: a fifth of all,
by names that are known before anything is labelled. The page on the interphase has all commands.

The crystals are there so that the set has its own energies of the elements, and anchors on either side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase import Atoms
from ase.build import cut
from ase.calculators.calculator import BaseCalculator
from ase.geometry import get_distances
from ase.io import read, write
from make_li6ps5cl_data import write_frames

from asenequip import AllegroCalculator
from asenequip.interface import Side, build_interface, exchange, make_crystal, occupy
from asenequip.md import Unstable, run_md
from asenequip.relax import relax

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
WARM = (("Li6PS5Cl", 1, 16), ("LiCl", 1, 7), ("Li2S", 1, 7), ("Li3P", 1, 7), ("Li", 2, 4))
"""Name, repeats along each axis, frames: their volumes go evenly from 10 percent below to 10 percent above."""
DEFECTS = {"LiCl": ("Cl", "S", 1), "Li2S": ("S", "Cl", -1), "Li3P": ("P", "S", -1), "Li": ("Li", "Li", 1)}
"""Of an element, one atom becomes another one, and one lithium is put in or taken out: no charge is left over."""
PRODUCTS = {"Li3P": 1.0, "Li2S": 5.0, "LiCl": 1.0}
"""Of Li6PS5Cl and 8 Li."""
MIXTURES: tuple[Mapping[str, float], ...] = (
    PRODUCTS,
    {"Li6PS5Cl": 0.5, "Li3P": 0.5, "Li2S": 2.5, "LiCl": 0.5},
    {**PRODUCTS, "Li": 4},
    {"LiCl": 5, "Li2S": 2},
    {"Li3P": 2, "Li2S": 3},
    {"Li6PS5Cl": 0.75, "Li3P": 0.25, "Li2S": 1.25, "LiCl": 0.25},
    {**PRODUCTS, "Li": 8},
    {"LiCl": 5, "Li": 6},
    {"Li3P": 2, "Li2S": 2, "LiCl": 2},
    {"Li2S": 4, "Li": 6},
)
"""Formula units of each crystal, which give the elements and the volume; half a unit of Li6PS5Cl is half reduced."""
QUENCH = ((1500.0, 300), (1000.0, 200), (600.0, 300))
"""Temperature (K) and steps of 1 fs; a frame is kept at the end of each."""
IN_PARTS = ("hot-", "mix-")
"""Names of frames that come in trajectories: the last part of the name is the frame's own."""
JUDGES = 5
"""One of so many trajectories is held back."""

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


def inserted(atoms: Atoms, symbol: str, rng: np.random.Generator, tries: int = 100) -> Atoms:
    """A copy with one atom more: of so many random places, at the one that is farthest from all atoms."""
    places = rng.random((tries, 3)) @ atoms.cell.array
    more = atoms.copy()
    nearest = get_distances(places, atoms.positions, cell=atoms.cell, pbc=True)[1].min(axis=1) if len(atoms) else [0.0]
    more += Atoms(symbol, positions=[places[int(np.argmax(nearest))]])
    return more


def bare(atoms: Atoms, **info: object) -> Atoms:
    """Elements, positions and cell alone."""
    copy = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    copy.info = dict(info)
    return copy


def defective(atoms: Atoms, name: str, rng: np.random.Generator) -> Atoms:
    """A copy with a defect of `DEFECTS`."""
    old, new, lithium = DEFECTS[name]
    changed = bare(atoms)
    changed.symbols[rng.choice(np.flatnonzero(atoms.symbols == old))] = new
    if lithium > 0:
        return inserted(changed, "Li", rng)
    del changed[int(rng.choice(np.flatnonzero(changed.symbols == "Li")))]
    return changed


def warm_crystal(name: str, repeats: int, number: int, count: int) -> Atoms:
    """A crystal by its number: volume, a random shear, and for each second one a defect, or S and Cl exchanged."""
    rng = np.random.default_rng([SEED, 3000, sum(map(ord, name)), number])
    crystal = argyrodite() if name == "Li6PS5Cl" else make_crystal(name)
    if name == "Li6PS5Cl" and number % 2:
        crystal = exchange(crystal, (1, 3), 1.0, rng)
    atoms = bare(occupy(crystal, rng).repeat(repeats))
    if name in DEFECTS and number % 2:
        atoms = defective(atoms, name, rng)
    volume = 1 + 0.2 * (number / (count - 1) - 0.5)
    shear = rng.normal(scale=0.025, size=(3, 3))
    shear = (shear + shear.T) / 2
    strain = np.eye(3) * volume ** (1 / 3) + shear - np.eye(3) * np.trace(shear) / 3
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return atoms


def mixture(number: int) -> Atoms:
    """A packing by its number, of random places far from each other; of Li6PS5Cl half reduced: lithium put into it."""
    rng = np.random.default_rng([SEED, 4000, number])
    units = MIXTURES[number % len(MIXTURES)]
    counts: dict[str, float] = {}
    volume = 0.0
    for name, share in units.items():
        crystal = occupy(make_crystal(name), np.random.default_rng(0))
        formula, repeats = crystal.symbols.formula.reduce()
        volume += share * crystal.get_volume() / repeats
        for symbol, each in formula.count().items():
            counts[symbol] = counts.get(symbol, 0) + share * each
    volume *= rng.uniform(0.95, 1.08)
    if "Li6PS5Cl" in units:
        atoms = bare(occupy(argyrodite(), rng))
        missing = {"Li": round(counts["Li"]) - 6}
    else:
        cell = np.eye(3) + rng.normal(scale=0.06, size=(3, 3))
        atoms, missing = Atoms(cell=cell, pbc=True), {symbol: round(count) for symbol, count in counts.items()}
    atoms.set_cell(atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    for symbol in rng.permutation([symbol for symbol, count in sorted(missing.items()) for _ in range(count)]):
        atoms = inserted(atoms, str(symbol), rng)
    return atoms


def trajectory(origin: str) -> str:
    """Name of the trajectory that a frame is of; frames that stand alone are their own."""
    return origin.rsplit("-", 1)[0] if origin.startswith(IN_PARTS) else origin


def draw(origin: str) -> int:
    """A number that the name of a frame's trajectory alone decides: its hash."""
    return int(hashlib.sha256(trajectory(origin).encode()).hexdigest(), 16)


def judges(origin: str) -> bool:
    """Whether a frame is held back; with it, its whole trajectory is, so that no neighbour in time is learnt."""
    return draw(origin) % JUDGES == 0


def dynamics(
    atoms: Atoms, calculator: BaseCalculator, course: Sequence[tuple[float, int]], seed: int
) -> Iterator[tuple[int, float, Atoms]]:
    """Number, temperature (K) and atoms at the end of each part of a course; ends early where atoms fall together."""
    for part, (kelvin, steps) in enumerate(course):
        try:
            atoms = run_md(atoms, calculator, steps=steps, temperature=kelvin, damping=50.0, seed=seed + part)
        except Unstable as error:
            typer.echo(f"{seed}: {str(error).splitlines()[0]}")
            return
        yield part, kelvin, atoms


Potential = Annotated[Path, typer.Argument(exists=True, help="A potential, a .asnq file.")]
Output = Annotated[Path, typer.Argument(help="File to make, *.extxyz.")]


def keep(output: Path, frames: list[Atoms]) -> None:
    """Write them, and say so."""
    write(output, frames)
    typer.echo(f"{len(frames)} frames of {min(map(len, frames))} to {max(map(len, frames))} atoms: {output}")


@app.command()
def start(output: Output) -> None:
    """Make rattled interfaces and crystals."""
    keep(output, [bare(make(), origin=name) for name, make in starts()])


@app.command()
def heat(
    potential: Potential,
    output: Output,
    cells: Annotated[int, typer.Option(min=1, help="Interface cells that are heated.")] = 12,
    frames: Annotated[int, typer.Option(min=1, help="Frames kept of each.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 1 fs between them.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="Number of the first cell; another one in each round.")] = 100,
    largest: Annotated[int, typer.Option(min=1, help="Larger cells are left out.")] = 62,
) -> None:
    """Heat interface cells with a potential and keep frames of their dynamics."""
    calculator, kept = AllegroCalculator(potential), []
    for number in range(first, first + cells):
        atoms, kelvin = interface_cell(number), TEMPERATURES[number % len(TEMPERATURES)]
        if len(atoms) <= largest:
            for frame, _, moved in dynamics(atoms, calculator, [(kelvin, steps)] * frames, number * 100):
                kept.append(bare(moved, origin=f"hot-{number}-{frame}", temperature=kelvin))
    keep(output, kept)


@app.command()
def warm(
    potential: Potential,
    output: Output,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 1 fs for each.")] = 100,
    only: Annotated[list[str] | None, typer.Option(help="A crystal; may be given several times.")] = None,
) -> None:
    """Strain crystals, some of them with defects, and heat each a little with a potential."""
    calculator, kept = AllegroCalculator(potential), []
    for name, repeats, count in WARM:
        for number in range(count) if only is None or name in only else ():
            start = warm_crystal(name, repeats, number, count)
            atoms = relax([start], calculator, fmax=0.5, steps=60)[0].atoms
            kelvin = TEMPERATURES[number % len(TEMPERATURES)]
            for _, _, moved in dynamics(atoms, calculator, [(kelvin, steps)], number):
                kept.append(bare(moved, origin=f"warm-{name}-{number}", temperature=kelvin))
    keep(output, kept)


@app.command()
def mix(
    potential: Potential,
    output: Output,
    count: Annotated[int, typer.Option(min=1, help="Packings.")] = len(MIXTURES),
    first: Annotated[int, typer.Option(min=0, help="Number of the first one; another one in each round.")] = 0,
) -> None:
    """Melt packings of the elements of an interface and quench them with a potential."""
    calculator, kept = AllegroCalculator(potential), []
    for number in range(first, first + count):
        atoms = relax([mixture(number)], calculator, fmax=1.0, steps=60)[0].atoms
        for part, kelvin, moved in dynamics(atoms, calculator, QUENCH, number * 100):
            kept.append(bare(moved, origin=f"mix-{number}-{part}", temperature=kelvin))
    keep(output, kept)


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


@app.command()
def split(
    labelled: Annotated[Path, typer.Argument(exists=True, help="Labelled frames.")], learn: Output, judge: Output
) -> None:
    """Hold a fifth of the trajectories back for judging; the others in random order, any last part a fair draw."""
    frames = sorted(read(labelled, ":"), key=lambda atoms: draw(atoms.info["origin"]))
    keep(learn, [atoms for atoms in frames if not judges(atoms.info["origin"])])
    keep(judge, [atoms for atoms in frames if judges(atoms.info["origin"])])


if __name__ == "__main__":
    app()
