"""``asenequip md``: molecular dynamics from a structure, or on from where a run stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import Debug, Device, Dtype, Model, Progress, open_calculator, read_frames
from asenequip.interrupt import Interrupted

if TYPE_CHECKING:
    from ase import Atoms

    from asenequip.calculator import AllegroCalculator


def md(
    structure: Annotated[Path | None, typer.Argument(help="Start, in any format of ASE's.", show_default=False)] = None,
    model: Model = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Trajectory: .traj, .xyz or .extxyz.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", "-n", help="Steps of the whole run.", show_default=False)
    ] = None,
    ensemble: Annotated[str, typer.Option("--ensemble", help="nvt, nve or npt.")] = "nvt",
    thermostat: Annotated[
        str | None,
        typer.Option("--thermostat", help="nvt: langevin (default), nose-hoover or bussi.", show_default=False),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", "-T", help="Kelvin.")] = 300.0,
    pressure: Annotated[float, typer.Option("--pressure", "-P", help="GPa, for npt.")] = 0.0,
    cell: Annotated[str, typer.Option("--cell", help="npt: isotropic or full.")] = "isotropic",
    timestep: Annotated[float, typer.Option("--timestep", help="fs.")] = 1.0,
    damping: Annotated[float, typer.Option("--damping", help="Time constant of the thermostat, fs.")] = 100.0,
    pressure_damping: Annotated[
        float, typer.Option("--pressure-damping", help="Time constant of the barostat, fs.")
    ] = 1000.0,
    interval: Annotated[int, typer.Option("--interval", help="Steps between two frames.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Of velocities and random forces.")] = 0,
    log: Annotated[
        Path | None, typer.Option("--log", help="Table of numbers; beside the output by default.", show_default=False)
    ] = None,
    index: Annotated[str, typer.Option("--index", help="Which structure of the file.")] = "-1",
    coverage: Annotated[
        str, typer.Option("--coverage", help="Beyond the training's distances: warn, stop or off.")
    ] = "warn",
    guard: Annotated[
        float | None,
        typer.Option(
            "--guard",
            help="Stop where a force is less certain, eV/A, and keep the frame for labelling.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on from the .restart file of a run, exactly.", show_default=False),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Run molecular dynamics.

    Three files grow side by side: the trajectory, a table of numbers (.csv), and the state (.restart) from which
    --resume goes on exactly as if the run had not stopped. With --resume all settings come from the state; --steps may
    be given to make the run longer.
    """
    from asenequip.md import Guards, read_settings

    settings: dict[str, Any]
    guards = Guards(coverage=coverage)
    if resume is not None:
        if structure is not None or output is not None:
            raise ValueError(
                "With --resume the structure and the files of the run go on: leave STRUCTURE and --output out."
            )
        _, known = read_settings(resume)
        made = known["calculator"]
        path, compiled = model or _model_of(made, resume), made.get("compiled")
        calculator = open_calculator(path, made.get("device", device), made.get("dtype", dtype), compiled=compiled)
        settings = {"restart": resume, "steps": steps or known["steps"], "guards": guards}
        settings |= _observer(guard, resume, calculator)
        _run(None, calculator, settings, resume, already=known["step"])
        return
    if structure is None or output is None or steps is None:
        raise ValueError("A run needs STRUCTURE, --output and --steps; or --resume and the state of another run.")
    atoms = read_frames(structure, index)[-1]
    settings = {
        "steps": steps,
        "ensemble": ensemble,
        "thermostat": thermostat,
        "cell": cell,
        "temperature": temperature,
        "pressure": pressure,
        "timestep": timestep,
        "damping": damping,
        "pressure_damping": pressure_damping,
        "interval": interval,
        "seed": seed,
        "trajectory": output,
        "log": output.with_suffix(".csv") if log is None else log,
        "state": output.with_suffix(".restart"),
        "guards": guards,
    }
    calculator = open_calculator(model, device, dtype)
    settings |= _observer(guard, output, calculator)
    _run(atoms, calculator, settings, settings["state"], already=0)


def _observer(limit: float | None, path: Path, calculator: AllegroCalculator) -> dict[str, Any]:
    """The guard on the uncertainty, if one is wanted; frames are handed over beside the run's files."""
    if limit is None:
        return {}
    if calculator.rigidity is None:
        raise ValueError(
            "--guard asks for the uncertainty of forces, and this potential carries none.\n"
            "Train with 'uncertainty:' in the settings, or leave --guard out."
        )
    from asenequip.uncertainty import Guard

    return {"observe": Guard(limit, "hand over", path=path.with_suffix(".unsure.extxyz"))}


def _model_of(made: Mapping[str, Any], resume: Path) -> Path:
    if not made.get("model"):
        raise ValueError(f"'{resume}' names no potential. Give it with --model.")
    return Path(made["model"])


def _run(
    atoms: Atoms | None, calculator: AllegroCalculator, settings: dict[str, Any], state: Path, already: int
) -> None:
    from asenequip.md import run_md

    began = time.monotonic()
    with Progress("Steps", settings["steps"]) as progress:

        def watch(numbers: Mapping[str, float]) -> None:
            note = f"{numbers['temperature_K']:.0f} K, {numbers['total_eV']:.4f} eV"
            progress.show(int(numbers["step"]), note)

        try:
            final = run_md(atoms, calculator, watch=watch, **settings)
        except Interrupted as stop:
            raise Interrupted(f"{stop}\nGo on with: asenequip md --resume {state}") from None
    seconds = time.monotonic() - began
    made = settings["steps"] - already
    typer.echo(
        f"{made} steps of {len(final)} atoms in {seconds:.1f} s ({made / max(seconds, 1e-9):.1f} steps/s, "
        f"{1e3 * seconds / max(1, made):.2f} ms per step). State: {state}"
    )
