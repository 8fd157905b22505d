"""``asenequip-train`` and its verbs; ``asenequip-train CONFIG`` is short for run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = {
    "ConfigError": 2,
    "RunLockedError": 4,
    "NonFiniteLossError": 5,
    "FrameTooLargeError": 6,
    "Interrupted": 130,
}
"""Of the errors that are a user's matter, by name: the modules that define them take a second to import."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train an Allegro potential. Short form: asenequip-train CONFIG.yaml",
)

_Config = Annotated[Path, typer.Argument(help="Settings, YAML; or labelled frames, for the settings of init.")]
_Set = Annotated[list[str], typer.Option("--set", help="Setting to change, as section.name=value; repeat it.")]
_Run = Annotated[Path, typer.Argument(help="Run directory.")]


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    if arguments and not arguments[0].startswith("-") and arguments[0] not in verbs:
        arguments = ["run", *arguments]
    app(arguments, prog_name="asenequip-train")


@app.command()
def run(
    config: _Config,
    set_: _Set = [],  # noqa: B006 (typer copies it)
    resume: Annotated[Path | None, typer.Option(help="Continue this run with these settings.")] = None,
) -> None:
    """Train a potential."""
    with _errors():
        from asenequip.train.settings_file import load_config

        settings = load_config(config, set_)
        if resume is not None:
            from asenequip.train.resume import resume_run

            resume_run(resume, settings)
        else:
            from asenequip.train.run import fit

            fit(None, settings, quiet=False)


@app.command()
def resume(run: _Run, set_: _Set = []) -> None:  # noqa: B006
    """Continue a run that was interrupted, from its last checkpoint."""
    with _errors():
        from asenequip.train.config import parse_config
        from asenequip.train.rundir import RunDirectory
        from asenequip.train.settings_file import apply_overrides

        settings = parse_config(apply_overrides(RunDirectory(run).config().model_dump(), set_))
        from asenequip.train.resume import resume_run

        resume_run(run, settings)


@app.command()
def report(run: _Run) -> None:
    """Write figures, model card and HTML page of a run anew, from its files."""
    with _errors():
        from asenequip.train.redraw import redraw

        typer.echo(redraw(run))


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Labelled frames, any format ASE reads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("config.yaml"),
) -> None:
    """Write commented settings that suit a data file."""
    with _errors():
        from asenequip.train.init import write_settings

        typer.echo(write_settings(data, output))


@app.command()
def check(config: _Config, set_: _Set = []) -> None:  # noqa: B006
    """Dry run: look at data, labels and units, and estimate the time; exit code 3 if a label looks wrong."""
    with _errors():
        from asenequip.train.check import check_settings
        from asenequip.train.settings_file import load_config

        text, problems = check_settings(load_config(config, set_))
        typer.echo(text)
    if problems:
        raise typer.Exit(3)


@app.command()
def preprocess(
    config: _Config,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    shard_size: Annotated[int, typer.Option(help="Megabytes of a shard.", min=1)] = 256,
    set_: _Set = [],  # noqa: B006
) -> None:
    """Write frames and neighbour lists into shards, for data larger than memory."""
    with _errors():
        from asenequip.train.preprocess import preprocess as write_shards
        from asenequip.train.settings_file import load_config

        typer.echo(write_shards(load_config(config, set_), output, shard_size))


@app.command()
def schema() -> None:
    """Print the JSON schema of the settings, for editors that complete and check YAML."""
    import json

    from asenequip.train.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=1))


@contextmanager
def _errors() -> Iterator[None]:
    """Errors that are a user's matter as their text and an exit code; others as they are."""
    try:
        yield
    except Exception as error:
        kind = type(error)
        if kind.__name__ not in EXIT_CODES or not kind.__module__.startswith("asenequip."):
            raise
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_CODES[kind.__name__]) from None
