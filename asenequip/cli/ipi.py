"""``asenequip ipi``: the client that i-PI, or any program with its socket protocol, asks for energies and forces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import Debug, Device, Dtype, Model, open_calculator, read_frames


def _print_path(wanted: bool) -> None:
    if wanted:
        typer.echo(Path(__file__).parents[1] / "engines" / "ipi.py")
        raise typer.Exit


def ipi(
    template: Annotated[
        Path, typer.Argument(help="A structure with the elements in the server's order.", show_default=False)
    ],
    model: Model = None,
    unix: Annotated[
        str | None, typer.Option("--unix", help="Name of a socket on this machine, /tmp/ipi_NAME.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where the server runs.")] = "localhost",
    port: Annotated[int, typer.Option("--port", help="Port of the server.")] = 31415,
    wait: Annotated[float, typer.Option("--wait", help="Seconds in which the server has to appear.")] = 60.0,
    index: Annotated[str, typer.Option("--index", help="Which structure of the file.")] = "-1",
    path: Annotated[
        bool,
        typer.Option(
            "--path", help="Show where the batched driver for i-PI's ffdirect is.", callback=_print_path, is_eager=True
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Answer a program that moves the atoms: i-PI, or ASE's SocketIOCalculator.

    One structure at a time. For the beads of a path integral give i-PI the batched driver (--path) instead: it
    evaluates all of them at once.
    """
    from asenequip.engines.sockets import answer

    atoms = read_frames(template, index)[-1]
    atoms.calc = open_calculator(model, device, dtype)
    done = 0
    for done in answer(atoms, host=host, port=port, unixsocket=unix, wait=wait):  # noqa: B007  the last one counts
        pass
    typer.echo(f"{done} evaluations of {len(atoms)} atoms; the server is done.")
