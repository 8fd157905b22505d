"""The ``asenequip`` command: one verb per file; what a verb needs is imported when it runs."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

import asenequip
from asenequip.cli.active import active
from asenequip.cli.cluster import cluster
from asenequip.cli.common import Verbs
from asenequip.cli.compile import compile_
from asenequip.cli.convert import convert
from asenequip.cli.elastic import elastic
from asenequip.cli.eos import eos
from asenequip.cli.evaluate import evaluate
from asenequip.cli.info import info
from asenequip.cli.interface import interface
from asenequip.cli.ipi import ipi
from asenequip.cli.label import label
from asenequip.cli.lammps import lammps
from asenequip.cli.md import md
from asenequip.cli.phonons import phonons
from asenequip.cli.relax import relax
from asenequip.cli.select import select

app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 done but for some structures; 2 error; 130 stopped. Training: asenequip-train.",
)
for _verb in (info, convert, evaluate, relax, md, phonons, eos, elastic, cluster, select, label, active, lammps, ipi):
    app.command()(_verb)
app.command(name="compile")(compile_)
app.add_typer(interface, name="interface")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asenequip {asenequip.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Allegro potentials in ASE's own language: run them, relax with them, look into them."""


def main() -> None:
    """Entry point of the ``asenequip`` command."""
    warnings.formatwarning = lambda message, *rest, **more: f"Warning: {message}\n"
    app()
