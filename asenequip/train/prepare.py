"""From settings and data to everything that training needs: samples, statistics, an untrained model, a device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from asenequip.model.allegro import Allegro
from asenequip.rounding import PRECISIONS
from asenequip.train.config import Config, ConfigError, make_spec
from asenequip.train.data import SPLITS, Frame, Sample, collate, make_samples, species_of
from asenequip.train.distributed import local_rank
from asenequip.train.finetune import adopt_model, extend_species, freeze, load_start, shift_to_data
from asenequip.train.loss import LossFunction
from asenequip.train.pace import pace_of, set_pace
from asenequip.train.preconditions import check_labels, check_packages, check_precision, check_species
from asenequip.train.shards import Shards
from asenequip.train.sources import load_data
from asenequip.train.statistics import Statistics, gather_statistics
from asenequip.train.step import eager_step
from asenequip.train.table import tabulate

_TRIALS = 4
"""Steps timed for each number of threads."""
_GAIN = 0.85
"""More threads are taken where the time falls below this part."""


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, made from settings and data.

    Attributes
    ----------
    config : Config
    species : tuple of str
        Of the model.
    samples : dict of sequences of Sample
        "train", "valid", "test".
    statistics : Statistics
    model : Allegro
        Untrained, or the potential that training starts from; on its device, in its precision.
    learnt : tuple of str
        Species that the potential knows that training starts from.
    """

    config: Config
    species: tuple[str, ...]
    samples: dict[str, Sequence[Sample]]
    statistics: Statistics
    model: Allegro
    learnt: tuple[str, ...] = ()


def pick_device(name: str) -> torch.device:
    """The device that ``device`` names; "auto" is CUDA if there is one, else the CPU."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"The setting 'device' must be auto, cpu, cuda or cuda:N. Got {name!r} instead.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("The setting 'device' asks for CUDA, but torch finds no CUDA device.\nSet device: cpu.")
    return device


def read_data(config: Config, frames: Sequence[Atoms] | None = None) -> Mapping[str, Sequence[Frame]] | Shards:
    """The data that the settings name: frames by part, or an opened folder of shards."""
    if config.data.shards is not None and frames is None:
        return Shards(config.data.shards, config.data)
    return load_data(config.data, frames)


def model_cutoffs(config: Config, species: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Species of the model for data that hold ``species``, and the cutoff of each ordered pair, (T, T), Angstrom."""
    if config.start is None:
        return list(species), np.array(make_spec(config.model, species, [1.0] * len(species)).cutoff_table())
    start = load_start(config.start)
    names = [*start.spec.type_names, *(name for name in species if name not in start.spec.type_names)]
    return names, np.array(extend_species(start, names, [1.0] * len(names), 0).spec.cutoff_table())


def prepare(config: Config, data: Mapping[str, Sequence[Frame]] | Shards) -> Prepared:
    """Graphs, statistics and an untrained model.

    Parameters
    ----------
    config : Config
    data : mapping or Shards
        From `read_data`.
    """
    check_packages(config)
    device = pick_device(config.device)
    check_precision(config, device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    start = load_start(config.start) if config.start is not None else None
    if start is not None:
        config = adopt_model(config, start.spec)
    if isinstance(data, Shards):
        species, cutoffs = model_cutoffs(config, config.model.species or data.species)
        samples: dict[str, Sequence[Sample]] = {name: data.samples(name, species, cutoffs) for name in SPLITS}
        isolated: Sequence[Frame] = data.isolated
    else:
        found = config.model.species or species_of([frame for part in data.values() for frame in part])
        species, cutoffs = model_cutoffs(config, found)
        samples = {name: make_samples(data[name], species, cutoffs) for name in SPLITS}
        isolated = data["isolated"]
    if config.uncertainty is not None and not len(samples["valid"]):
        raise ConfigError("The setting 'uncertainty' needs validation frames to calibrate on. Set data.split.valid.")
    own = [dataset.own_shifts for dataset in config.data.train] or [False]
    table = tabulate(samples["train"], len(species))
    check_labels(config.loss, table)
    check_species(config, species)
    config = set_pace(config, table)
    statistics = gather_statistics(config.model, species, table, isolated, own)
    if start is not None:
        model = extend_species(start, species, statistics.neighbors.tolist(), config.seed)
        if config.model.energy_shifts != "keep":
            shift_to_data(model, samples["train"], table, statistics.offsets)
    else:
        model = Allegro(make_spec(config.model, species, statistics.neighbors.tolist()), seed=config.seed)
        with torch.no_grad():
            model.scales.copy_(torch.from_numpy(statistics.scales))
            model.shifts.copy_(torch.from_numpy(statistics.shifts))
    freeze(model, config.training.freeze)
    model = model.to(getattr(torch, PRECISIONS[config.dtype])).to(device)
    if config.threads is None and model.device.type == "cpu":
        config = config.model_copy(update={"threads": pick_threads(model, samples["train"], config)})
    learnt = start.spec.type_names if start is not None else ()
    return Prepared(config, tuple(species), samples, statistics, model, tuple(learnt))


def pick_threads(model: Allegro, samples: Sequence[Sample], config: Config) -> int:
    """Number of CPU threads that makes a training step fastest, by trying; torch is set to it.

    More threads must pay: small batches do not use them, and on a machine that others use they wait for one another.
    """
    size = pace_of(config, tabulate(samples, model.spec.num_types)).batch_size
    most, part = torch.get_num_threads(), samples[:size]
    loss = LossFunction(config.loss, model.spec.type_names)
    step, batch = eager_step(model, loss, config.dtype), collate(part).to(model.device)
    arguments, best, chosen = (loss.divisors(part), loss.coefficients(0.0)), math.inf, 1
    step(batch, *arguments)  # kernels are compiled here
    for threads in sorted({1, max(1, most // 2), most}):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(_TRIALS):
            step(batch, *arguments)
        seconds = time.perf_counter() - start
        if seconds < _GAIN * best:
            best, chosen = seconds, threads
    torch.set_num_threads(chosen)
    return chosen
