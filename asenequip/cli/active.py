"""``asenequip active``: a campaign of active learning, from its settings to a trusted potential."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import Debug


def active(
    config: Annotated[Path, typer.Argument(help="Settings of the campaign, YAML.", show_default=False)],
    set_: Annotated[list[str], typer.Option("--set", help="Setting to change, as section.name=value; repeat it.")] = [],  # noqa: B006 (typer copies it)
    debug: Debug = False,
) -> None:
    """Explore, select, label and train until fresh structures are predicted well enough.

    The same command goes on after any interruption. The page index.html in the output folder shows the state.
    """
    from asenequip.active import load_campaign, run_campaign

    campaign = load_campaign(config, set_)
    typer.echo(f"Campaign in {campaign.output}; its state: {Path(campaign.output) / 'index.html'}")
    found = run_campaign(campaign, watch=lambda line: typer.echo(line, err=True))
    typer.echo(f"Ended after round {found.rounds} with {found.labels} labels: {found.reason}")
    typer.echo(f"Potential: {found.model}")
