"""``asenequip interface``: build an interface cell, run it, analyse its trajectory, write the page."""

from __future__ import annotations

import json
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
    electrode: Annotated[str, typer.Option("--electrode", help="Name of a crystal, or a structure file.")] = "Li",
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

    mixed = None if exchange is None else _numbers(exchange, "exchange", 3)
    atoms = build_interface(
        Side(_crystal(electrode), _plane(electrode_plane), electrode_thickness, vacancies=vacancies),
        Side(
            _crystal(electrolyte),
            _plane(electrolyte_plane),
            electrolyte_thickness,
            termination,
            None if mixed is None else (int(mixed[0]), int(mixed[1]), mixed[2]),
        ),
        gap=gap,
        max_misfit=max_misfit,
        max_area=max_area,
        share=share,
        repeat=tuple(int(n) for n in _numbers(repeat, "repeat", 2)),  # type: ignore[arg-type]
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
    trajectory: Annotated[Path, typer.Argument(help="Frames, in any format of ASE's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")],
    interval: Annotated[
        float | None, typer.Option(help="Time between two frames, ps, where they do not say it.", show_default=False)
    ] = None,
    references: Annotated[str, typer.Option(help="Crystals that classes are compared with.")] = (
        "Li,Li2S,Li3P,LiCl,Li6PS5Cl"
    ),
    carriers: Annotated[str, typer.Option(help="Mobile elements and their charges: Li:1.")] = "Li:1",
    drift: Annotated[str, typer.Option(help="What the drift is taken from: all, none, or elements: P,S,Cl.")] = "all",
    lags: Annotated[
        int | None, typer.Option(help="Longest time difference of diffusion, frames.", show_default=False)
    ] = None,
    bins: Annotated[int, typer.Option(help="Of the profiles.")] = 100,
    structure_every: Annotated[int, typer.Option(help="Frames between two looks at structure.")] = 10,
    index: Index = ":",
    debug: Debug = False,
) -> None:
    """Analyse a trajectory in one pass: analysis.json and a CSV file per table."""
    from asenequip.interface import Choices, summarise, write_tables
    from asenequip.interface import analyse as analyse_frames
    from asenequip.interface.analysis import count_frames

    if (output / "analysis.json").exists():
        raise FileExistsError(f"'{output / 'analysis.json'}' exists and is not overwritten. Choose another folder.")
    total = count_frames(trajectory, index)
    choices = Choices(
        references=_names(references),
        carriers={name: float(charge) for name, _, charge in (c.partition(":") for c in _names(carriers))},
        reference=drift if drift in ("all", "none") else _names(drift),
        lags=max(3, total // 24) if lags is None else lags,
        bins=bins,
        structure_every=structure_every,
    )
    with Progress("Frames", total) as progress:
        found = analyse_frames(trajectory, index=index, interval=interval, choices=choices, watch=progress.show)
    summary = summarise(found, {"trajectory": str(trajectory), "index": index})
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
    """A named crystal, or the structure of a file."""
    return read_frames(Path(name))[-1] if Path(name).suffix and Path(name).exists() else name


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, name: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise typer.BadParameter(f"'{text}' must be {count} numbers with commas between them.", param_hint=f"--{name}")
    return found


def _plane(text: str) -> tuple[int, int, int]:
    h, k, l = (int(n) for n in _numbers(text, "plane", 3))
    return h, k, l
