"""A training run from settings to potential: data, statistics, model, loop, report, artefact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asenequip.artifact import Potential, load_artifact, save_artifact
from asenequip.coverage import Coverage
from asenequip.interrupt import Interrupted
from asenequip.train.config import Config, parse_config
from asenequip.train.data import SPLITS
from asenequip.train.distributed import Team, join_team
from asenequip.train.loggers import loggers
from asenequip.train.loop import Trainer
from asenequip.train.metrics import predict
from asenequip.train.page import write_page
from asenequip.train.preconditions import remarks
from asenequip.train.prepare import Prepared, pick_device, prepare, read_data
from asenequip.train.progress import live
from asenequip.train.report import draw_figures, judged_part, model_card, parity_tables, test_frames
from asenequip.train.rundir import RunDirectory, create_run, environment
from asenequip.train.state import Event
from asenequip.train.table import sources_of
from asenequip.train.uncertainty import fit_uncertainty

Say = Callable[[str], None]


def fit(
    frames: Sequence[Atoms] | None,
    config: Config | Mapping[str, Any] | None = None,
    *,
    quiet: bool = True,
) -> Potential:
    """Train a potential.

    Parameters
    ----------
    frames : sequence of ase.Atoms, optional
        Labelled frames (a calculator holding results, or the keys that ``data.train[0].keys`` names), in eV,
        eV/Angstrom and eV/Angstrom^3 unless ``units`` say otherwise; divided as ``data.split`` says. None: the files
        of the settings.
    config : Config or mapping, optional
        Settings, as in the YAML file.
    quiet : bool
        Print nothing.

    Returns
    -------
    Potential
        Read back from ``model.asnq`` in the run directory, which is ``potential.path.parent``.

    Raises
    ------
    ConfigError
        If settings or data are wrong.
    NonFiniteLossError
        If training diverges; the frame is named.
    """
    config = config if isinstance(config, Config) else parse_config(config or {})
    say: Say = (lambda text: None) if quiet else print
    team = join_team(pick_device(config.device))
    prepared = prepare(config, read_data(config, frames))
    run = RunDirectory(Path(team.tell(str(create_run(config.output).path) if team.leads else None)))
    with run.lock() if team.leads else nullcontext():
        if team.leads:
            start_run(run, prepared, given=frames is not None)
            say(describe(prepared, run))
        return train_run(run, prepared, quiet=quiet, say=say, team=team)


def describe(prepared: Prepared, run: RunDirectory) -> str:
    """What is about to be trained, in a few lines."""
    counts = ", ".join(f"{name} {len(prepared.samples[name])}" for name in SPLITS)
    weights = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
    neighbors = prepared.statistics.neighbors
    pairs = ", ".join(f"{s} {n:.1f}" for s, n in zip(prepared.species, neighbors, strict=True))
    notes = [f"\nNote: {text}" for text in remarks(prepared)]
    return (
        f"Run directory {run.path}\n"
        f"Frames: {counts}; neighbours within {prepared.config.model.cutoff:g} A: {pairs}\n"
        f"Force rms {prepared.statistics.force_rms:.3f} eV/A; {weights} weights; {prepared.model.device}, "
        f"{prepared.config.dtype}, {torch.get_num_threads()} threads" + "".join(notes)
    )


def start_run(run: RunDirectory, prepared: Prepared, given: bool) -> None:
    """Write what the run starts from: settings, environment, division of the frames, statistics."""
    config, statistics = prepared.config, prepared.statistics
    run.write_config(config, given)
    run.write_json("environment.json", environment())
    run.write_json("split.json", {name: sources_of(samples) for name, samples in prepared.samples.items()})
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(statistics).items()
    }
    run.write_json("statistics.json", {"species": prepared.species, **values})
    run.log("start", config_sha256=config.digest)


def train_run(
    run: RunDirectory,
    prepared: Prepared,
    quiet: bool,
    say: Say,
    team: Team = Team(),  # noqa: B008 (immutable)
) -> Potential:
    """Train (from the last checkpoint if there is one), then write figures, predictions, model card and artefact."""
    trainer = _train(run, prepared, quiet or not team.leads, say if team.leads else lambda text: None, team)
    if team.leads:
        trainer.team = Team()
        potential = finish_run(run, prepared, trainer, say)
    team.tell(None)  # the others wait until the potential is written
    return potential if team.leads else load_artifact(run.potential, device=prepared.model.device)


def _train(run: RunDirectory, prepared: Prepared, quiet: bool, say: Say, team: Team) -> Trainer:
    """The loop, with its log; returns the trainer at the end of training."""
    config, samples, offsets = prepared.config, prepared.samples, prepared.statistics.offsets

    def log(event: str, **values: object) -> None:
        if team.leads:
            run.log(event, **values)

    trainer = Trainer(prepared.model, config, samples["train"], samples["valid"], offsets, run.checkpoints, team=team)
    for path in trainer.restore():
        log("damaged", file=path.name)
        say(f"The checkpoint {path.name} is damaged; an earlier one is used.")
    if trainer.progress.step:
        if team.leads:
            run.write_metrics(trainer.progress.rows)
        log("resume", step=trainer.progress.step, epoch=trainer.progress.epoch)
        say(f"Resuming after {trainer.progress.epoch} epochs, {trainer.progress.step} steps")
    if config.training.compile:
        compile_step(trainer, log, say)
    names = config.loggers if team.leads else []
    with live(quiet) as show, loggers(names, config, run, trainer.progress.step) as send:

        def watch(event: Event) -> None:
            if event.text is not None:
                log("out of memory", budget=event.progress.budget)
                say(event.text)
            elif event.row is not None and team.leads:
                run.write_metrics(event.progress.rows)
                run.log("epoch", seconds=round(event.progress.seconds, 3), **event.row)
                send(event)
            show(event)

        trainer.watch = watch
        try:
            trainer.run()
        except Interrupted:
            log("interrupted", step=trainer.progress.step)
            raise Interrupted(
                f"Stopped after step {trainer.progress.step}; the state is saved.\n"
                f"Go on with: asenequip-train resume {run.path}"
            ) from None
    log("trained", seconds=trainer.progress.seconds, step=trainer.progress.step)
    return trainer


def compile_step(trainer: Trainer, log: Callable[..., None], say: Say) -> None:
    """Compile the training step; where that fails, say so and go on without."""
    try:
        trainer.compile()
        log("compiled")
    except RuntimeError as error:
        log("not compiled", reason=str(error))
        say(f"{str(error).splitlines()[0]}\nTraining goes on uncompiled: same numbers, slower.")


def finish_run(run: RunDirectory, prepared: Prepared, trainer: Trainer, say: Say) -> Potential:
    """Results of the best epoch: errors, figures, predictions, potential, model card."""
    config, samples, model = prepared.config, prepared.samples, prepared.model
    best_epoch = trainer.load_best()
    if not best_epoch:
        say("The best epoch has no undamaged checkpoint: the potential has the averaged weights of the last one.")
    model.requires_grad_(False)
    present = [name for name in ("test", "valid", "train") if len(samples[name])]
    errors = {name: trainer.validate(samples[name], averaged=False) if name in present else {} for name in SPLITS[1:]}
    if present[0] == "train":
        errors["train"] = trainer.validate(samples["train"], averaged=False)
    judged = samples[present[0]]
    predictions = predict(model, judged, trainer.offsets, trainer.pace.batch_size)
    tables = parity_tables(judged, predictions, prepared.species)
    figures = draw_figures(run, tables, trainer.progress.rows)
    _write_predictions(run, test_frames(judged, predictions))
    record: dict[str, Any] = {
        "species": list(prepared.species),
        "cutoff": config.model.cutoff,
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": config.licence,
        "frames": {name: len(samples[name]) for name in SPLITS},
        "data": [dataset.path for dataset in config.data.train] or ["frames given in memory"],
        "force_rms": prepared.statistics.force_rms,
        "energy_zeros": zeros_record(trainer, prepared),
        "coverage": Coverage.of((sample.graph for sample in samples["train"]), prepared.species).to_record(),
        "best_epoch": best_epoch,
        "steps": trainer.progress.step,
        "seconds": trainer.progress.seconds,
        "config_sha256": config.digest,
        **errors,
    }
    if not run.potential.exists():
        golden = samples["train"][0].frame.atoms
        part = None
        if config.uncertainty is not None:
            part = fit_uncertainty(model, samples, trainer.offsets, config.uncertainty, config.seed)
        save_artifact(run.potential, model, golden=golden, provenance={"training": record}, uncertainty=part)
    potential = load_artifact(run.potential, device=model.device)
    record["sha256"] = potential.sha256
    run.write_json("summary.json", record)
    run.write_text("MODEL_CARD.md", model_card(record))
    write_page(run)
    run.log("done", **{k: v for k, v in record.items() if k in ("valid", "test", "sha256", "best_epoch")})
    say(closing_lines(run, record, figures))
    return potential


def zeros_record(trainer: Trainer, prepared: Prepared) -> dict[str, dict[str, float]]:
    """By file, what a data set with a zero of its own has beyond the potential's energies, eV per atom and species."""
    datasets, offsets = prepared.config.data.train, trainer.offsets
    return {
        datasets[k].path: dict(zip(prepared.species, offsets[k].tolist(), strict=True)) for k in trainer.zeros.frames
    }


def _write_predictions(run: RunDirectory, frames: Sequence[Atoms]) -> None:
    import io

    from ase.io import write

    stream = io.StringIO()
    write(stream, list(frames), format="extxyz")
    run.write_text("predictions.extxyz", stream.getvalue())


def closing_lines(run: RunDirectory, record: Mapping[str, Any], figures: Sequence[Path]) -> str:
    """Errors and where everything is."""
    part, which = judged_part(record)
    errors, lines = record[part], []
    if "energy_mae" in errors:
        lines.append(f"{which} energy MAE  {errors['energy_mae'] * 1e3:.2f} meV/atom")
    if "forces_mae" in errors:
        share = errors["forces_mae"] / record["force_rms"] if record["force_rms"] else float("nan")
        size = f"{errors['forces_mae'] * 1e3:.1f} meV/A ({100 * share:.1f} % of the training force rms)"
        lines.append(f"{which} forces MAE  {size}")
    if "stress_mae" in errors:
        lines.append(f"{which} stress MAE  {errors['stress_mae'] * 160.21766:.3f} GPa")
    lines.append(f"Figures and their numbers: {run.figures} ({len(figures)} figures); all on one page: report.html")
    lines.append(f"Potential: {run.potential}")
    return "\n".join(lines)
