"""The dry run: what the data are, whether their labels look right, and how long training would take."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms

from asenequip.train.batching import pack
from asenequip.train.config import Config, Dataset, Keys
from asenequip.train.data import ENERGY_UNITS, SPLITS, Frame, collate, take_labels
from asenequip.train.keys import find_keys, names_of
from asenequip.train.loss import LossFunction
from asenequip.train.pace import pace_of
from asenequip.train.preconditions import remarks
from asenequip.train.prepare import Prepared, prepare
from asenequip.train.sources import load_data
from asenequip.train.step import eager_step
from asenequip.train.table import tabulate

_NET_FORCE = 0.05
"""eV/Angstrom per atom^(1/2): a larger net force is drift of the reference calculation, or a wrong key."""
_OUTLIER = 20.0
"""Robust standard deviations of the energy per atom beyond which a frame is named."""
_HIGH_STRESS = 1.0
"""eV/Angstrom^3, 160 GPa: where the largest component is above it on half of the frames, the unit is another."""
_SAME_STRESS = 0.01
"""Relative: stress and virial of one frame differ by no more where both are right."""
_ALIKE = 0.7
"""Frames of a trajectory are nearer to the next than to those half the set away, at least by this factor."""
_REACHED = 0.9
"""Part of the cutoff up to which the data should hold distances."""
_MOST_NAMED = 5


def check_settings(config: Config) -> tuple[str, int]:
    """Look at data and labels without training.

    Returns
    -------
    str
        The findings as text.
    int
        Number of labels that look wrong.
    """
    config = config.model_copy(update={"data": config.data.model_copy(update={"shards": None})})
    frames = load_data(config.data)
    prepared = prepare(config, frames)
    every = [frame for name in SPLITS for frame in frames[name]]
    own_zeros = {k for k, dataset in enumerate(config.data.train) if dataset.own_shifts}
    found = lint(every, frames["isolated"], prepared.species, own_zeros)
    found += _virials(every, [ENERGY_UNITS[dataset.units.energy] for dataset in config.data.train])
    lines = [_summary(prepared), _estimate(prepared)]
    lines += [f"note: {text}" for text in (*remarks(prepared), *_beyond(prepared), *_kinship(config, frames))]
    lines += [f"problem: {text}" for text in found]
    lines.append(f"Problems found: {len(found)}." if found else "No problems found.")
    return "\n".join(lines), len(found)


def lint(
    frames: Sequence[Frame], isolated: Sequence[Frame], species: Sequence[str], own_zeros: Collection[int] = ()
) -> list[str]:
    """What looks wrong in labelled frames, one sentence each, naming file and frame.

    Parameters
    ----------
    frames, isolated : sequences of Frame
        Ordinary frames, and single atoms.
    species : sequence of str
    own_zeros : collection of int
        Values of `Frame.dataset` of the sets whose energies have a zero of their own.
    """
    checks = (_missing, _duplicates, _net_forces, _units, _stress_size, _stress_sign, _close_atoms)
    found = [text for check in checks for text in check(frames)]
    found += _outliers(frames, own_zeros)
    present = {str(frame.atoms.symbols[0]) for frame in isolated}
    absent = [name for name in species if name not in present]
    if present and absent:
        found.append(
            f"isolated atoms are given, but not of {', '.join(absent)}: energy shifts fall back to least squares"
        )
    return found


def _named(frames: Sequence[Frame]) -> str:
    names = [frame.source for frame in frames[:_MOST_NAMED]]
    return ", ".join(names) + (f" and {len(frames) - _MOST_NAMED} more" if len(frames) > _MOST_NAMED else "")


def _missing(frames: Sequence[Frame]) -> list[str]:
    out = []
    for label, has in (
        ("energy", lambda f: np.isfinite(f.energy)),
        ("forces", lambda f: np.isfinite(f.forces).all()),
    ):
        without = [frame for frame in frames if not has(frame)]
        if without:
            out.append(f"no {label} on {len(without)} of {len(frames)} frames (keys?): {_named(without)}")
    return out


def _duplicates(frames: Sequence[Frame]) -> list[str]:
    seen: dict[bytes, Frame] = {}
    out = []
    for frame in frames:
        atoms = frame.atoms
        key = np.round(atoms.positions, 5).tobytes() + np.round(atoms.cell.array, 5).tobytes() + atoms.numbers.tobytes()
        if key in seen:
            out.append(f"{frame.source} has the geometry of {seen[key].source}")
        seen.setdefault(key, frame)
    return _shorten(out)


def _net_forces(frames: Sequence[Frame]) -> list[str]:
    wrong = []
    for frame in frames:
        if np.isfinite(frame.forces).all():
            net = np.linalg.norm(frame.forces.sum(axis=0)) / np.sqrt(len(frame.atoms))
            if net > _NET_FORCE:
                wrong.append(frame)
    return [f"the forces do not add up to zero on {len(wrong)} frames: {_named(wrong)}"] if wrong else []


def _outliers(frames: Sequence[Frame], own_zeros: Collection[int]) -> list[str]:
    """Energies per atom far from those of the same composition and the same zero."""
    groups: dict[tuple[str, int], list[Frame]] = {}
    for frame in frames:
        if np.isfinite(frame.energy):
            zero = frame.dataset if frame.dataset in own_zeros else -1
            groups.setdefault((frame.atoms.get_chemical_formula(), zero), []).append(frame)
    out = []
    for (formula, _), group in groups.items():
        values = np.array([frame.energy / len(frame.atoms) for frame in group])
        spread = 1.4826 * np.median(np.abs(values - np.median(values)))
        if len(group) < 8 or spread == 0:
            continue
        wrong = [f for f, v in zip(group, values, strict=True) if abs(v - np.median(values)) > _OUTLIER * spread]
        if wrong:
            out.append(f"the energy is far from that of the other {formula} frames on {_named(wrong)}")
    return out


def _units(frames: Sequence[Frame]) -> list[str]:
    """Compare energy differences with the work of the forces along neighbouring frames of one trajectory."""
    ratios = []
    for first, second in pairwise(frames):
        ratio = _work_ratio(first, second)
        if ratio is not None:
            ratios.append(ratio)
    if len(ratios) < 8:
        return []
    middle = float(np.median(ratios))
    factors = {name: value for name, value in ENERGY_UNITS.items() if name != "eV"}
    guesses = [(1 / value, "energies", name) for name, value in factors.items()]
    guesses += [(value, "forces", name) for name, value in factors.items()]
    nearest = min(guesses, key=lambda guess: abs(np.log(abs(middle) / guess[0])) if middle else np.inf)
    if middle > 0 and abs(np.log(middle / nearest[0])) < 0.08:
        return [f"energy differences are {middle:.3g} times the work of the forces: {nearest[1]} in {nearest[2]}?"]
    if middle < 0:
        return [f"energy differences are {middle:.3g} times the work of the forces: gradients instead of forces?"]
    return []


def _work_ratio(first: Frame, second: Frame) -> float | None:
    """Ratio dE / (-F . dx) of two frames of one composition and cell; None where it says nothing."""
    a, b = first.atoms, second.atoms
    if not np.array_equal(a.numbers, b.numbers) or not np.allclose(a.cell.array, b.cell.array):
        return None
    step = b.positions - a.positions
    if np.abs(step).max() > 0.5:
        return None
    work = -0.5 * float(((first.forces + second.forces) * step).sum())
    change = second.energy - first.energy
    scale = 0.5 * float((np.abs(first.forces + second.forces) * np.abs(step)).sum())
    if not np.isfinite([work, change]).all() or abs(work) < 0.1 * scale or work == 0:
        return None
    return change / work


def _stress_size(frames: Sequence[Frame]) -> list[str]:
    largest = [np.abs(frame.stress).max() for frame in frames if np.isfinite(frame.stress).all()]
    if not largest or np.median(largest) < _HIGH_STRESS:
        return []
    return [f"half of the stresses are above {np.median(largest):.3g} eV/Angstrom^3: in GPa or kbar? (units.stress)"]


def _stress_sign(frames: Sequence[Frame]) -> list[str]:
    """Compare stress with dE/dV over frames of one composition, where volumes differ."""
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        if np.isfinite(frame.energy) and np.isfinite(frame.stress).all() and frame.atoms.cell.rank == 3:
            groups.setdefault(frame.atoms.get_chemical_formula(), []).append(frame)
    wrong = []
    for formula, group in groups.items():
        volumes = np.array([frame.atoms.get_volume() for frame in group])
        if len(group) < 5 or np.ptp(volumes) < 0.02 * volumes.mean():
            continue
        pressure = np.array([-np.trace(frame.stress) / 3 for frame in group])
        slope = np.polyfit(volumes, pressure, 1)[0]
        if slope > 0:
            wrong.append(formula)
    named = ", ".join(wrong[:_MOST_NAMED]) + (" ..." if len(wrong) > _MOST_NAMED else "")
    hint = "stress of the opposite sign? (units.stress_sign: -1)"
    return [f"the pressure of {named} grows with the volume: {hint}"] if wrong else []


def _virials(frames: Sequence[Frame], units: Sequence[float]) -> list[str]:
    """Compare stress with a virial that stands beside it: -V times the stress, in the energy unit of the data set."""
    wrong = []
    for frame in frames:
        key = find_keys(names_of(frame.atoms))["virial"]
        if key is None or frame.atoms.cell.rank < 3 or not np.isfinite(frame.stress).all():
            continue
        other = take_labels(
            frame.atoms, Dataset(path="", keys=Keys(energy=None, forces=None, stress=None, virial=key)), ""
        )
        difference = np.abs(other.stress * units[frame.dataset] - frame.stress).max()
        if difference > _SAME_STRESS * max(np.abs(frame.stress).max(), 1e-4):
            wrong.append(frame)
    return [f"stress and virial contradict each other on {len(wrong)} frames: {_named(wrong)}"] if wrong else []


def _beyond(prepared: Prepared) -> list[str]:
    """Where the cutoff and the data do not fit each other: atoms that see nothing, distances that no frame holds."""
    samples = [sample for name in SPLITS for sample in prepared.samples[name]]
    alone = [s.frame for s in samples if s.graph.num_atoms > 1 and (np.diff(s.graph.ptr.numpy()) == 0).any()]
    cutoff, out = prepared.config.model.cutoff, []
    if alone:
        where = f"{len(alone)} frames: {_named(alone)}"
        out.append(f"atoms without any neighbour within the cutoff of {cutoff:g} Angstrom on {where}")
    farthest = max((float(s.graph.vectors().norm(dim=1).max()) for s in samples if s.graph.num_edges), default=0.0)
    if 0 < farthest < _REACHED * cutoff:
        out.append(
            f"no two atoms are farther apart than {farthest:.2f} Angstrom: what the cutoff of {cutoff:g} Angstrom adds "
            "to that is never seen in training"
        )
    return out


def _kinship(config: Config, frames: Mapping[str, Sequence[Frame]]) -> list[str]:
    """Whether frames that follow one another are alike, as in a trajectory, and a random division separates them."""
    drawn = [name for name in ("valid", "test") if frames[name] and not getattr(config.data, name)]
    if config.data.split.method != "random" or not drawn:
        return []
    train = [frame.atoms for frame in frames["train"]]
    near = [d for a, b in pairwise(train) if (d := _distance(a, b)) is not None]
    far = [d for a, b in zip(train, train[len(train) // 2 :], strict=False) if (d := _distance(a, b)) is not None]
    if min(len(near), len(far)) < 8 or np.median(near) > _ALIKE * np.median(far):
        return []
    return [
        "frames that follow one another are alike, as in a trajectory, and the division is random: errors on frames "
        "held out are flattering then. Set data.split.method: end, or group"
    ]


def _distance(first: Atoms, second: Atoms) -> float | None:
    """Root mean square displacement between two frames, Angstrom; None where they are not of the same atoms."""
    if not np.array_equal(first.numbers, second.numbers):
        return None
    moves = second.positions - first.positions
    if first.cell.rank == 3:
        parts = first.cell.scaled_positions(moves)
        moves = first.cell.cartesian_positions(parts - np.round(parts) * first.pbc)
    return float(np.sqrt((moves**2).sum(axis=1).mean()))


def _close_atoms(frames: Sequence[Frame]) -> list[str]:
    from asenequip.neighbors import find_edges

    wrong = []
    for frame in frames:
        atoms = frame.atoms
        centers, _, _ = find_edges(atoms.positions, atoms.cell.array, atoms.pbc, 0.5)
        if len(centers):
            wrong.append(frame)
    return [f"atoms closer than 0.5 Angstrom on {_named(wrong)}"] if wrong else []


def _shorten(lines: list[str]) -> list[str]:
    extra = len(lines) - _MOST_NAMED
    return lines if extra <= 0 else [*lines[:_MOST_NAMED], f"and {extra} more of this kind"]


def _summary(prepared: Prepared) -> str:
    statistics, species = prepared.statistics, prepared.species
    counts = ", ".join(f"{name} {len(prepared.samples[name])}" for name in SPLITS)

    def per_type(values: np.ndarray) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(species, values, strict=True))

    return (
        f"frames: {counts}\nspecies: {', '.join(species)}\nneighbours: {per_type(statistics.neighbors)}\n"
        f"force rms: {statistics.force_rms:.4g} eV/Angstrom\nenergy shifts: {per_type(statistics.shifts)} eV"
    )


def _estimate(prepared: Prepared) -> str:
    """Time of a step and of the whole training, measured on the largest batch."""
    config, model, samples = prepared.config, prepared.model, prepared.samples["train"]
    table, loss = tabulate(samples, len(prepared.species)), LossFunction(config.loss, prepared.species)
    edges, settings, pace = table.num_edges().tolist(), config.training, pace_of(config, table)
    batches = pack(range(len(edges)), edges, pace.batch_size, settings.max_edges)
    largest = max(batches, key=lambda batch: sum(edges[k] for k in batch))
    chosen = [samples[k] for k in largest]
    batch = collate(chosen, prepared.statistics.offsets).to(model.device)
    arguments = [values.to(model.device) for values in (loss.divisors(chosen), loss.coefficients(0.0))]
    step, times = eager_step(model, loss, config.dtype), []
    for _ in range(3):
        start = time.perf_counter()
        step(batch, *arguments)
        times.append(time.perf_counter() - start)
    minutes, limit = pace.epochs * len(batches) * min(times) / 60, settings.minutes
    text = f"largest batch: {len(chosen)} frames, {batch.graph.num_edges} edges, {min(times) * 1e3:.0f} ms a step"
    text += f" ({torch.get_num_threads()} threads)\ntraining: "
    if limit is not None and limit < minutes:
        return f"{text}about {limit * 60 / min(times):.0f} steps, stopped after {limit:g} minutes"
    length = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    return f"{text}{pace.epochs * len(batches):.0f} steps, about {length}"
