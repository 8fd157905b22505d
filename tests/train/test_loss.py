"""The loss against the same formula in numpy, and what missing labels do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import Derivatives
from asenequip.train.config import ConfigError, Dataset, parse_config
from asenequip.train.data import Batch, collate, make_samples, take_labels
from asenequip.train.loss import LossFunction, residuals

SPECIES = ["Al", "Cu"]
ROUNDING = 1e-12
"""Relative: float64 sums of tens of terms in another order."""


def batch_of(frames: list[Atoms], weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Batch:
    labelled = [
        take_labels(atoms, Dataset(path="x", weight=weight), str(k))
        for k, (atoms, weight) in enumerate(zip(frames, weights, strict=False))
    ]
    return collate(make_samples(labelled, SPECIES, np.full((2, 2), 3.0)))


def made_up(batch: Batch, seed: int = 0) -> Derivatives:
    rng = np.random.default_rng(seed)
    n = batch.graph.num_atoms
    values = [torch.from_numpy(rng.normal(size=shape)) for shape in ((n,), (n, 3), (n, 3, 3))]
    return Derivatives(*values)


def loss_of(batch: Batch, found: Derivatives, **settings: object) -> float:
    function = LossFunction(parse_config({"loss": settings}).loss, SPECIES)
    return float(function.total(*function.terms(residuals(found, batch), batch)))


def per_frame(found: Derivatives, frames: list[Atoms]) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Energy, forces and symmetric virial of each frame, by slicing."""
    out, start = [], 0
    for atoms in frames:
        mine = slice(start, start + len(atoms))
        virial = found.virials[mine].sum(0).numpy()
        out.append((float(found.energies[mine].sum()), found.forces[mine].numpy(), 0.5 * (virial + virial.T)))
        start += len(atoms)
    return out


def test_squares_are_those_of_numpy(frames: list[Atoms]) -> None:
    frames = frames[:3]
    batch = batch_of(frames)
    found = made_up(batch)
    energy, forces, virial = [], [], []
    for atoms, (e, f, w) in zip(frames, per_frame(found, frames), strict=True):
        n = len(atoms)
        energy.append(((e - atoms.get_potential_energy()) / n) ** 2)
        forces.append((f - atoms.get_forces()) ** 2)
        virial.append(((w - atoms.get_stress(voigt=False) * atoms.get_volume()) / n) ** 2)
    wanted = 2.0 * np.mean(energy) + 3.0 * np.mean(forces) + 0.5 * np.mean(virial)
    assert loss_of(batch, found, energy=2, forces=3, stress=0.5) == pytest.approx(wanted, rel=ROUNDING)


@pytest.mark.parametrize("kind", ["mae", "huber", "stratified_huber"])
def test_every_kind_equals_its_definition(frames: list[Atoms], kind: str) -> None:
    frames, delta = frames[:2], 0.3
    batch = batch_of(frames)
    found = made_up(batch)
    total = 0.0
    for atoms, (_, f, _) in zip(frames, per_frame(found, frames), strict=True):
        for row, reference in zip(f, atoms.get_forces(), strict=True):
            norm = np.linalg.norm(reference)
            factor = 1.0 if norm <= 0.1 else 0.7 if norm <= 0.3 else 0.4 if norm <= 1.0 else 0.1
            edge = delta * (factor if kind == "stratified_huber" else 1.0)
            for r in np.abs(row - reference):
                total += r if kind == "mae" else 0.5 * r * r if r <= edge else edge * (r - 0.5 * edge)
    count = 3 * sum(map(len, frames))
    got = loss_of(batch, found, kind=kind, delta=delta, energy=0, stress=0)
    assert got == pytest.approx(total / count, rel=ROUNDING)


def test_missing_labels_do_not_count(frames: list[Atoms]) -> None:
    """A frame without stress changes nothing in the stress term of the others."""
    bare = frames[1].copy()
    batch, both = batch_of([frames[0]]), batch_of([frames[0], bare])
    found = made_up(both)
    n = len(frames[0])
    alone = Derivatives(found.energies[:n], found.forces[:n], found.virials[:n])
    assert loss_of(both, found) == loss_of(batch, alone)


def test_frames_and_species_have_weights(frames: list[Atoms]) -> None:
    frames = frames[:2]
    batch = batch_of(frames, weights=(1.0, 3.0))
    found = made_up(batch)
    top = bottom = 0.0
    for atoms, weight, (_, f, _) in zip(frames, (1.0, 3.0), per_frame(found, frames), strict=True):
        per_atom = weight * np.where(np.array(atoms.get_chemical_symbols()) == "Cu", 0.25, 1.0)
        top += (per_atom * ((f - atoms.get_forces()) ** 2).mean(axis=1)).sum()
        bottom += per_atom.sum()
    got = loss_of(batch, found, energy=0, stress=0, species_weights={"Cu": 0.25})
    assert got == pytest.approx(top / bottom, rel=ROUNDING)


def test_gradient_is_that_of_finite_differences(frames: list[Atoms]) -> None:
    """The loss goes through forces and virials: its gradient holds second derivatives of the energy."""
    from asenequip.model.derivatives import evaluate_derivatives
    from asenequip.train.config import make_spec

    batch = batch_of(frames[:2])
    config = parse_config({"model": {"num_scalar_features": 4, "num_tensor_features": 2, "cutoff": 3.0}})
    model = Allegro(make_spec(config.model, SPECIES, [12.0, 12.0]), seed=3)
    function = LossFunction(config.loss, SPECIES)

    def loss() -> torch.Tensor:
        found = residuals(evaluate_derivatives(model, batch.graph, create_graph=True), batch)
        return function.total(*function.terms(found, batch))

    weight = model.two_body.weights[0]
    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=weight.shape))
    step, values = 1e-4, []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(float(loss().detach()))
        with torch.no_grad():
            weight -= sign * step * direction
    numeric = (values[0] - values[1]) / (2 * step)
    # truncation step^2 times a third derivative, relative to the slope
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-5)


def coefficients(part: float, **settings: object) -> list[float]:
    stages = [{"at": 0.5, "energy": 100.0}, {"at": 0.75, "forces": 3.0, "stress": 0.0}]
    loss = parse_config({"loss": {"energy": 10.0, "forces": 1.0, "stress": 2.0, "stages": stages, **settings}}).loss
    return LossFunction(loss, SPECIES).coefficients(part).tolist()


@pytest.mark.parametrize(
    ("part", "wanted"),
    [(0.0, [10, 1, 2]), (0.49, [10, 1, 2]), (0.5, [100, 1, 2]), (0.75, [100, 3, 0]), (1.0, [100, 3, 0])],
)
def test_stages_hold_from_their_beginning_on(part: float, wanted: list[float]) -> None:
    assert coefficients(part) == wanted


@pytest.mark.parametrize(("part", "wanted"), [(0.25, [55, 1, 2]), (0.625, [100, 2, 1]), (0.9, [100, 3, 0])])
def test_linear_stages_are_reached_at_their_time(part: float, wanted: list[float]) -> None:
    assert coefficients(part, change="linear") == pytest.approx(wanted)


def test_stages_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="ordered by `at`"):
        parse_config({"loss": {"stages": [{"at": 0.5}, {"at": 0.2}]}})


def test_epochs_are_judged_with_the_last_coefficients(frames: list[Atoms]) -> None:
    batch = batch_of(frames[:3])
    found = made_up(batch)
    stages = [{"at": 0.9, "energy": 7.0}]
    assert loss_of(batch, found, energy=1.0, stages=stages) == loss_of(batch, found, energy=7.0)
