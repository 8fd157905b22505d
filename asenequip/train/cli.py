"""``asenequip-train`` and its verbs; ``asenequip-train CONFIG`` is short for run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

VERBS = ("init", "check", "preprocess", "run", "resume", "report", "schema")
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train an Allegro potential. Short form: asenequip-train CONFIG.yaml",
)

_Config = Annotated[Path, typer.Argument(help="Settings, YAML.")]
_Set = Annotated[list[str], typer.Option("--set", help="Setting to change, as section.name=value; repeat it.")]
_Run = Annotated[Path, typer.Argument(help="Run directory.")]


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
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
            _resume(resume, settings)
            return
        from asenequip.train.run import fit

        fit(None, settings, quiet=False)


@app.command()
def resume(run: _Run, set_: _Set = []) -> None:  # noqa: B006
    """Continue a run that was interrupted, from its last checkpoint."""
    with _errors():
        from asenequip.train.config import parse_config
        from asenequip.train.rundir import RunDirectory
        from asenequip.train.settings_file import apply_overrides

        old = RunDirectory(run).config()
        _resume(run, parse_config(apply_overrides(old.model_dump(), set_)))


def _resume(path: Path, settings: object) -> None:
    from asenequip.train.config import Config
    from asenequip.train.resume import resume_run

    if isinstance(settings, Config):
        resume_run(path, settings)


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
    """Errors of the user's making as one sentence and exit code 2; an interrupted run as 130."""
    try:
        yield
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    from asenequip.train.config import ConfigError
    from asenequip.train.rundir import RunLockedError

    known: list[tuple[Callable[[], type[Exception]], int]] = [(lambda: ConfigError, 2), (lambda: RunLockedError, 4)]
    if "asenequip.train.loop" in sys.modules:
        loop = sys.modules["asenequip.train.loop"]
        known += [(lambda: loop.NonFiniteLossError, 5), (lambda: loop.FrameTooLargeError, 6)]
        known += [(lambda: loop.Interrupted, INTERRUPTED)]
    for kind, code in known:
        if isinstance(error, kind()):
            return code
    return None
