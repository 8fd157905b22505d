"""``asenequip interface``: build an interface cell, run it, analyse its trajectory, write the page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from asenequip.cli.common import (
    Debug,
    Device,
    Dtype,
    Index,
    Model,
    Output,
    Progress,
    Verbs,
    open_calculator,
    read_frames,
    table,
    write_frames,
)

interface = typer.Typer(
    cls=Verbs, no_args_is_help=True, help="The interphase between electrode and electrolyte, from crystals to a report."
)
Miller = Annotated[str, typer.Option(help="Plane of the interface, as three integers: 1,0,0.")]


@interface.command()
def build(
    output: Output,
    electrode: Annotated[
        str, typer.Option("--electrode", help="Name of a crystal, or a structure file: a crystal or a slab.")
    ] = "Li",
    electrolyte: Annotated[str, typer.Option("--electrolyte", help="The same.")] = "Li6PS5Cl",
    electrode_plane: Miller = "1,0,0",
    electrolyte_plane: Miller = "1,0,0",
    electrode_thickness: Annotated[float, typer.Option(help="Of both halves together, Angstrom.")] = 20.0,
    electrolyte_thickness: Annotated[float, typer.Option(help="Angstrom.")] = 20.0,
    termination: Annotated[int, typer.Option(help="Of the electrolyte; 0 breaks the fewest bonds.")] = 0,
    exchange: Annotated[
        str | None,
        typer.Option(help="Two sites of the electrolyte and a degree: 1,3,0.5 exchanges S and Cl.", show_default=False),
    ] = None,
    vacancies: Annotated[float, typer.Option(help="Share of the electrode's atoms taken out.")] = 0.0,
    gap: Annotated[float, typer.Option(help="Angstrom; widened where atoms would be too close.")] = 2.2,
    max_misfit: Annotated[float, typer.Option(help="Largest misfit of the two lattices.")] = 0.05,
    max_area: Annotated[float, typer.Option(help="Largest common supercell, Angstrom^2.")] = 400.0,
    share: Annotated[float, typer.Option(help="Of the misfit, what the electrode takes on.")] = 0.5,
    repeat: Annotated[str, typer.Option(help="Repeats in the plane: 2,2.")] = "1,1",
    seed: Annotated[int, typer.Option("--seed", help="Of occupations, exchanges and vacancies.")] = 0,
    debug: Debug = False,
) -> None:
    """Build electrode | electrolyte | electrode from two crystals."""
    from asenequip.interface import Side, build_interface

    sides = (
        Side(_crystal(electrode), _plane(electrode_plane, "electrode-plane"), electrode_thickness, vacancies=vacancies),
        Side(
            _crystal(electrolyte),
            _plane(electrolyte_plane, "electrolyte-plane"),
            electrolyte_thickness,
            termination,
            None if exchange is None else _numbers(exchange, "exchange", (int, int, float)),
        ),
    )
    atoms = build_interface(
        *sides,
        gap=gap,
        max_misfit=max_misfit,
        max_area=max_area,
        share=share,
        repeat=_numbers(repeat, "repeat", (int, int)),
        seed=seed,
    )
    write_frames(output, [atoms])
    lines = [(name.replace("_", " "), str(value)) for name, value in atoms.info.items()]
    typer.echo(f"{len(atoms)} atoms: {output}\n{table(lines, left=True)}")


@interface.command()
def run(
    structure: Annotated[Path, typer.Argument(help="Start, in any format of ASE's.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder; one that exists is gone on with.")],
    model: Model = None,
    temperature: Annotated[float, typer.Option("--temperature", "-T", help="Kelvin.")] = 600.0,
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps of the production.")] = 50_000,
    heat: Annotated[int, typer.Option(help="Steps of heating.")] = 500,
    anneal: Annotated[int, typer.Option(help="Steps at constant pressure.")] = 1000,
    timestep: Annotated[float, typer.Option("--timestep", help="fs.")] = 2.0,
    interval: Annotated[int, typer.Option("--interval", help="Steps between two frames.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Of velocities and random forces.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Heat, anneal, and run; the same command goes on where an earlier one stopped."""
    from asenequip.interface import run_stages, usual_stages
    from asenequip.interrupt import Interrupted

    stages = usual_stages(temperature, production=steps, timestep=timestep, heat=heat, anneal=anneal, interval=interval)
    ends = {stage.name: sum(s.steps for s in stages[: k + 1]) for k, stage in enumerate(stages)}
    begins = {stage.name: ends[stage.name] - stage.steps for stage in stages}
    with Progress("Steps", max(ends.values())) as progress:
        try:
            final = run_stages(
                read_frames(structure)[-1],
                open_calculator(model, device, dtype),
                stages,
                folder,
                seed=seed,
                watch=lambda name, row: progress.show(
                    begins[name] + int(row["step"]), f"{name}, {row['temperature_K']:.0f} K"
                ),
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop}\nGo on with the same command.") from None
    typer.echo(f"{len(final)} atoms, stages {', '.join(ends)}: {folder / stages[-1].name}.traj")


@interface.command()
def analyse(
    trajectory: Annotated[Path, typer.Argument(help="Frames, in any format of ASE's, or a dump of LAMMPS.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")],
    interval: Annotated[
        float | None,
        typer.Option(help="Time between two frames that are taken, ps, where they do not say it.", show_default=False),
    ] = None,
    timestep: Annotated[
        float | None, typer.Option(help="Of the dynamics, fs, for a dump of LAMMPS.", show_default=False)
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Structure with the same atoms whose tags and elements hold: that of build.", show_default=False
        ),
    ] = None,
    normal: Annotated[str, typer.Option(help="Lattice vector that leads from layer to layer: a, b or c.")] = "c",
    references: Annotated[
        str | None,
        typer.Option(
            help="Crystals that classes are compared with, names or files; all known ones unless given.",
            show_default=False,
        ),
    ] = None,
    carriers: Annotated[str, typer.Option(help="Mobile elements and their charges.")] = "Li:1,Na:1,K:1",
    clusters: Annotated[
        str | None,
        typer.Option(
            help="Names of the clusters of asenequip cluster, which are the classes then.", show_default=False
        ),
    ] = None,
    electrode_classes: Annotated[
        str | None, typer.Option(help="Classes whose front ends the electrode.", show_default=False)
    ] = None,
    electrolyte_classes: Annotated[
        str | None, typer.Option(help="The same of the electrolyte.", show_default=False)
    ] = None,
    bonds: Annotated[
        str, typer.Option(help="Bonds to follow: elements, and where they form and break.")
    ] = "P-S:2.6:3.0",
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-T", help="Where frames have no velocities.", show_default=False)
    ] = None,
    drift: Annotated[str, typer.Option(help="What the drift is taken from: all, none, or elements: P,S,Cl.")] = "all",
    lags: Annotated[
        int | None, typer.Option(help="Longest time difference of diffusion, frames.", show_default=False)
    ] = None,
    bins: Annotated[int, typer.Option(help="Of the profiles.")] = 100,
    layer: Annotated[float, typer.Option(help="Half the width of the layers about the interfaces, Angstrom.")] = 5.0,
    structure_every: Annotated[int, typer.Option(help="Frames between two looks at structure.")] = 10,
    index: Index = ":",
    debug: Debug = False,
) -> None:
    """Analyse a trajectory in one pass: analysis.json and a CSV file per table."""
    from asenequip.interface import Choices, by_cluster, summarise, write_tables
    from asenequip.interface import analyse as analyse_frames
    from asenequip.interface.trajectory import count_frames

    if (output / "analysis.json").exists():
        raise FileExistsError(f"'{output / 'analysis.json'}' exists and is not overwritten. Choose another folder.")
    total = count_frames(trajectory, index)
    choices = Choices(
        classes=None if clusters is None else by_cluster(_names(clusters)),
        electrode=None if electrode_classes is None else _names(electrode_classes),
        electrolyte=None if electrolyte_classes is None else _names(electrolyte_classes),
        bonds=[_bond(text) for text in _names(bonds)],
        references=None if references is None else [_crystal(name) for name in _names(references)],
        carriers=dict(_charge(text) for text in _names(carriers)),
        temperature=temperature,
        reference=drift if drift in ("all", "none") else _names(drift),
        lags=max(3, total // 24) if lags is None else lags,
        bins=bins,
        layer=layer,
        structure_every=structure_every,
    )
    reading = {"index": index, "interval": interval, "timestep": timestep, "normal": normal}
    first = None if start is None else read_frames(start)[-1]
    with Progress("Frames", total) as progress:
        found = analyse_frames(trajectory, **reading, start=first, choices=choices, watch=progress.show)
    told = {name: value for name, value in reading.items() if value is not None}
    summary = summarise(found, {"trajectory": str(trajectory), **told})
    files = write_tables(summary, output)
    for warning in summary["warnings"]:
        typer.echo(f"Note: {warning}", err=True)
    typer.echo("\n".join(str(path) for path in files))


@interface.command()
def report(
    analysis: Annotated[Path, typer.Argument(help="Folder of analyse, or its analysis.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write: .html.")],
    title: Annotated[str, typer.Option(help="Of the page.")] = "Interface study",
    debug: Debug = False,
) -> None:
    """Write one HTML page that needs no network."""
    from asenequip.interface import write_report

    path = analysis / "analysis.json" if analysis.is_dir() else analysis
    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'. Make it with asenequip interface analyse.")
    typer.echo(str(write_report(json.loads(path.read_text()), output, title)))


def _crystal(name: str) -> Any:
    """The structure of a file, or a name; a file goes by its formula where it is a reference."""
    if Path(name).is_file():
        return read_frames(Path(name))[-1]
    if "." in name or os.sep in name:
        raise FileNotFoundError(f"There is no file '{name}'. Check the path.")
    return name


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str, kinds: Sequence[Callable[[str], Any]], sign: str = ",") -> Any:
    """Numbers in a row, each of its kind."""
    parts = text.split(sign)
    try:
        return tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))
    except ValueError:
        wanted = ", ".join("an integer" if kind is int else "a number" if kind is float else "a name" for kind in kinds)
        message = f"'{text}' must be {wanted}, with '{sign}' between them."
        raise typer.BadParameter(message, param_hint=f"--{option}") from None


def _plane(text: str, option: str) -> tuple[int, int, int]:
    found: tuple[int, int, int] = _numbers(text, option, (int, int, int))
    return found


def _charge(text: str) -> tuple[str, float]:
    """Li:1, or Li alone."""
    symbol, _, charge = text.partition(":")
    return symbol, _numbers(charge or "1", "carriers", (float,))[0]


def _bond(text: str) -> tuple[str, str, float, float]:
    """P-S:2.6:3.0."""
    pair, form, lose = _numbers(text, "bonds", (str, float, float), ":")
    first, second = _numbers(pair, "bonds", (str, str), "-")
    return first, second, form, lose
