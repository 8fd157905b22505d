"""A training run from settings to potential: data, statistics, model, loop, report, artefact."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asenequip.artifact import Potential, load_artifact, save_artifact
from asenequip.coverage import Coverage
from asenequip.model.allegro import Allegro
from asenequip.train.config import Config, ConfigError, make_spec, parse_config
from asenequip.train.data import SPLITS, Frame, Sample, collate, load_data, make_samples, species_of
from asenequip.train.distributed import Team, join_team
from asenequip.train.finetune import adopt_model, extend_species, freeze, load_start, shift_to_data
from asenequip.train.loop import Interrupted, Trainer
from asenequip.train.loss import LossFunction
from asenequip.train.metrics import predict
from asenequip.train.progress import live
from asenequip.train.report import draw_figures, model_card, parity_tables, test_frames
from asenequip.train.rundir import RunDirectory, create_run, environment
from asenequip.train.statistics import Statistics, gather_statistics
from asenequip.train.step import eager_step
from asenequip.train.uncertainty import fit_uncertainty

Say = Callable[[str], None]
_TRIALS = 4
"""Steps timed for each number of threads."""
_GAIN = 0.85
"""More threads are taken where the time falls below this part."""


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, made from settings and data."""

    config: Config
    species: tuple[str, ...]
    samples: dict[str, list[Sample]]
    statistics: Statistics
    model: Allegro


def fit(
    frames: Sequence[Atoms] | None,
    config: Config | Mapping[str, Any],
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
    config : Config or mapping
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
    config = config if isinstance(config, Config) else parse_config(config)
    say: Say = (lambda text: None) if quiet else print
    team = join_team(pick_device(config.device))
    prepared = prepare(config, load_data(config.data, frames))
    run = RunDirectory(Path(team.tell(str(create_run(config.output).path) if team.leads else None)))
    with run.lock() if team.leads else nullcontext():
        if team.leads:
            start_run(run, prepared, given=frames is not None)
            say(describe(prepared, run))
        return train_run(run, prepared, quiet=quiet, say=say, team=team)


def pick_device(name: str) -> torch.device:
    """The device that ``device`` names; "auto" is CUDA if there is one, else the CPU."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"The setting 'device' is wrong: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("The setting 'device' asks for CUDA, but torch finds no CUDA device.\nSet device: cpu.")
    return device


def prepare(config: Config, frames: Mapping[str, Sequence[Frame]]) -> Prepared:
    """Graphs, statistics and an untrained model.

    Parameters
    ----------
    config : Config
    frames : mapping
        From `load_data`.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    start = load_start(config.start) if config.start is not None else None
    if start is not None:
        config = adopt_model(config, start.spec)
    everything = [frame for part in frames.values() for frame in part]
    species = config.model.species or species_of(everything)
    if start is not None:
        species = [*start.spec.type_names, *(name for name in species if name not in start.spec.type_names)]
    cutoffs = _cutoffs(config, species, start)
    samples = {name: make_samples(frames[name], species, cutoffs) for name in SPLITS}
    if config.uncertainty is not None and not samples["valid"]:
        raise ConfigError("The setting 'uncertainty' needs validation frames to calibrate on. Set data.split.valid.")
    own = [dataset.own_shifts for dataset in config.data.train] or [False]
    statistics = gather_statistics(config.model, species, samples["train"], frames["isolated"], own)
    if start is not None:
        model = extend_species(start, species, statistics.neighbors.tolist(), config.seed)
        if config.model.energy_shifts != "keep":
            shift_to_data(model, samples["train"], statistics.offsets)
    else:
        model = Allegro(make_spec(config.model, species, statistics.neighbors.tolist()), seed=config.seed)
        with torch.no_grad():
            model.scales.copy_(torch.from_numpy(statistics.scales))
            model.shifts.copy_(torch.from_numpy(statistics.shifts))
    freeze(model, config.training.freeze)
    model = model.to(getattr(torch, config.dtype)).to(pick_device(config.device))
    if config.threads is None and model.device.type == "cpu":
        config = config.model_copy(update={"threads": pick_threads(model, samples["train"], config)})
    return Prepared(config, tuple(species), samples, statistics, model)


def pick_threads(model: Allegro, samples: Sequence[Sample], config: Config) -> int:
    """Number of CPU threads that makes a training step fastest, by trying; torch is set to it.

    More threads must pay: small batches do not use them, and on a machine that others use they wait for one another.
    """
    most, part = torch.get_num_threads(), samples[: config.training.batch_size]
    loss = LossFunction(config.loss, model.spec.type_names)
    step, batch = eager_step(model, loss), collate(part).to(model.device)
    divisors, best, chosen = loss.divisors(part), math.inf, 1
    step(batch, divisors)  # kernels are compiled here
    for threads in sorted({1, max(1, most // 2), most}):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(_TRIALS):
            step(batch, divisors)
        seconds = time.perf_counter() - start
        if seconds < _GAIN * best:
            best, chosen = seconds, threads
    torch.set_num_threads(chosen)
    return chosen


def _cutoffs(config: Config, species: Sequence[str], start: Allegro | None) -> np.ndarray:
    """Cutoff of each ordered pair of types, (T, T), Angstrom."""
    if start is None:
        return np.array(make_spec(config.model, species, [1.0] * len(species)).cutoff_table())
    return np.array(extend_species(start, species, [1.0] * len(species), 0).spec.cutoff_table())


def describe(prepared: Prepared, run: RunDirectory) -> str:
    """What is about to be trained, in a few lines."""
    counts = ", ".join(f"{name} {len(prepared.samples[name])}" for name in SPLITS)
    weights = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad)
    neighbors = prepared.statistics.neighbors
    pairs = ", ".join(f"{s} {n:.1f}" for s, n in zip(prepared.species, neighbors, strict=True))
    return (
        f"Run directory {run.path}\n"
        f"Frames: {counts}; neighbours within {prepared.config.model.cutoff:g} A: {pairs}\n"
        f"Force rms {prepared.statistics.force_rms:.3f} eV/A; {weights} weights; {prepared.model.device}, "
        f"{prepared.config.dtype}, {torch.get_num_threads()} threads"
    )


def start_run(run: RunDirectory, prepared: Prepared, given: bool) -> None:
    """Write what the run starts from: settings, environment, division of the frames, statistics."""
    config, statistics = prepared.config, prepared.statistics
    run.write_json("config.json", {"sha256": config.digest, "given_frames": given, "settings": config.model_dump()})
    run.write_json("environment.json", environment())
    run.write_json(
        "split.json", {name: [s.frame.source for s in samples] for name, samples in prepared.samples.items()}
    )
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
    config, samples = prepared.config, prepared.samples

    def log(event: str, **values: object) -> None:
        if team.leads:
            run.log(event, **values)

    with live(quiet) as watcher:

        def watch(event: Any) -> None:
            if event.row is not None and team.leads:
                run.write_metrics(event.progress.rows)
                run.log("epoch", seconds=round(event.progress.seconds, 3), **event.row)
            watcher(event)

        trainer = Trainer(
            prepared.model,
            config,
            samples["train"],
            samples["valid"],
            prepared.statistics.offsets,
            run.checkpoints,
            watch,
            team,
        )
        for path in trainer.restore():
            log("damaged", file=path.name)
            say(f"The checkpoint {path.name} is damaged; an earlier one is used.")
        if trainer.progress.step:
            if team.leads:
                run.write_metrics(trainer.progress.rows)
            log("resume", step=trainer.progress.step, epoch=trainer.progress.epoch)
            say(f"Resuming at epoch {trainer.progress.epoch}, step {trainer.progress.step}")
        if config.training.compile:
            compile_step(trainer, log, say)
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
    model.requires_grad_(False)
    trainer.config = config.model_copy(update={"training": config.training.model_copy(update={"ema": 0.0})})
    errors = {name: trainer.validate(samples[name]) if samples[name] else {} for name in ("valid", "test")}
    judged = samples["test"] or samples["valid"] or samples["train"]
    predictions = predict(model, judged, prepared.statistics.offsets, config.training.batch_size)
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
            part = fit_uncertainty(model, samples, prepared.statistics.offsets, config.uncertainty, config.seed)
        save_artifact(run.potential, model, golden=golden, provenance={"training": record}, uncertainty=part)
    potential = load_artifact(run.potential, device=model.device)
    record["sha256"] = potential.sha256
    run.write_json("summary.json", record)
    run.write_text("MODEL_CARD.md", model_card(record))
    run.log("done", **{k: v for k, v in record.items() if k in ("valid", "test", "sha256", "best_epoch")})
    say(closing_lines(run, record, figures))
    return potential


def _write_predictions(run: RunDirectory, frames: Sequence[Atoms]) -> None:
    import io

    from ase.io import write

    stream = io.StringIO()
    write(stream, list(frames), format="extxyz")
    run.write_text("predictions.extxyz", stream.getvalue())


def closing_lines(run: RunDirectory, record: Mapping[str, Any], figures: Sequence[Path]) -> str:
    """Errors and where everything is."""
    which = "test" if record["test"] else "valid"
    errors = record[which]
    lines = []
    if "energy_mae" in errors:
        lines.append(f"{which} energy MAE  {errors['energy_mae'] * 1e3:.2f} meV/atom")
    if "forces_mae" in errors:
        part = errors["forces_mae"] / record["force_rms"] if record["force_rms"] else float("nan")
        lines.append(
            f"{which} forces MAE  {errors['forces_mae'] * 1e3:.1f} meV/A ({100 * part:.1f} % of the training force rms)"
        )
    if "stress_mae" in errors:
        lines.append(f"{which} stress MAE  {errors['stress_mae'] * 160.21766:.3f} GPa")
    lines.append(f"Figures and their numbers: {run.figures} ({len(figures)} figures)")
    lines.append(f"Potential: {run.potential}")
    return "\n".join(lines)
