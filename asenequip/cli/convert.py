"""``asenequip convert``: a nequip-allegro checkpoint or package becomes a ``model.asnq``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import Debug
from asenequip.errors import parameter_error


def convert(
    source: Annotated[Path, typer.Argument(help="nequip-allegro checkpoint (.ckpt) or package (.nequip.zip).")],
    destination: Annotated[Path, typer.Argument(metavar="OUT.asnq", help="File to write.")],
    trust_pickle: Annotated[
        bool,
        typer.Option("--trust-pickle", help="Opening a checkpoint runs code that is in it: say that you trust it."),
    ] = False,
    python: Annotated[
        str | None,
        typer.Option("--python", help="Python that has nequip-allegro, if not this one.", show_default=False),
    ] = None,
    symbols: Annotated[
        str | None,
        typer.Option("--symbols", help="Chemical symbols of types named otherwise: A=Li,B=S.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Convert a nequip-allegro model, checking energies, forces and stress before it is written."""
    from asenequip.convert import convert as run

    chosen = None if symbols is None else parse_symbols(symbols)
    path = run(source, destination, trust_pickle=trust_pickle, python=python, symbols=chosen)
    typer.echo(f"Wrote {path}. Look at it with: asenequip info {path}")


def parse_symbols(text: str) -> dict[str, str]:
    """``A=Li,B=S`` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not (name.strip() and symbol.strip()) for name, _, symbol in pairs):
        raise parameter_error("--symbols", "convert", "pairs such as A=Li,B=S", text)
    return {name.strip(): symbol.strip() for name, _, symbol in pairs}
