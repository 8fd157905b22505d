"""Unwrapping, diffusion, conductivity and creep, against walks of known tensor and against other programs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.analysis import DiffusionCoefficient
from numpy.testing import assert_allclose

from asenequip.interface import (
    Creep,
    Diffusion,
    Estimate,
    by_layer,
    fit_arrhenius,
    nernst_einstein,
    stream,
)


def wandering(frames: int = 60, atoms: int = 12, seed: int = 0) -> tuple[np.ndarray, list[Atoms]]:
    """Free paths of two elements, and the same as wrapped frames of a skewed cell."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.0, 0, 0], [2.0, 5.0, 0], [1.0, -1.0, 7.0]])
    steps = rng.normal(scale=0.4, size=(frames, atoms, 3)) * np.where(np.arange(atoms) % 2, 1.0, 0.3)[None, :, None]
    paths = rng.random((atoms, 3)) @ cell + np.cumsum(steps, axis=0)
    symbols = ["Li" if k % 2 else "S" for k in range(atoms)]
    wrapped = []
    for k, positions in enumerate(paths):
        frame = Atoms(symbols, positions, cell=cell, pbc=True, info={"time_ps": 0.1 * k})
        frame.wrap()
        wrapped.append(frame)
    return paths, wrapped


def test_unwrapped_paths_are_the_free_ones():
    paths, frames = wandering()
    found = np.array([snapshot.unwrapped for snapshot in stream(frames, reference="none")])
    assert_allclose(found - found[0], paths - paths[0], atol=1e-9)


@pytest.mark.parametrize("reference", ["all", ["S"]])
def test_the_reference_does_not_drift(reference):
    paths, frames = wandering()
    masses = frames[0].get_masses() * (1 if reference == "all" else frames[0].symbols == "S")
    for k, snapshot in enumerate(stream(frames, reference=reference)):
        drift = masses @ (paths[k] - paths[0]) / masses.sum()
        assert_allclose(snapshot.drift, drift, atol=1e-9)
        moved = snapshot.unwrapped - paths[k]
        assert_allclose(moved, np.broadcast_to(moved[0], moved.shape) + np.round(moved - moved[0]), atol=6)


def test_a_breathing_cell_adds_no_diffusion():
    rng = np.random.default_rng(0)
    scaled = rng.random((200, 3))
    frames = []
    for k in range(200):  # atoms at rest in a cell whose length fluctuates by 1 percent
        cell = np.eye(3) * 10 * (1 + 0.01 * np.sin(k))
        frames.append(Atoms("Li200", scaled @ cell, cell=cell, pbc=True, info={"time_ps": float(k)}))
    last = list(stream(frames))[-1]
    start = scaled @ frames[0].cell.array
    assert np.abs(last.unwrapped - start).max() < 0.5


def test_a_frame_that_a_killed_run_left_twice_counts_once():
    _, frames = wandering(6)
    twice = [*frames[:3], frames[2].copy(), *frames[3:]]
    assert [snapshot.time for snapshot in stream(twice)] == [frame.info["time_ps"] for frame in frames]
    assert len(list(stream(twice, interval=0.1))) == 7


def test_frames_of_other_atoms_are_refused():
    with pytest.raises(ValueError, match="Frame 1 has other atoms"):
        list(stream([Atoms("Li"), Atoms("S")], interval=1.0, reference="none"))


def test_frames_without_a_time_are_refused():
    with pytest.raises(ValueError, match="do not say their time"):
        list(stream([Atoms("Li", cell=[3, 3, 3], pbc=True)]))


def test_the_slope_is_that_of_ase():
    paths, frames = wandering(81)
    free = [Atoms(frame.symbols, positions) for frame, positions in zip(frames, paths, strict=True)]
    reference = DiffusionCoefficient(free, 0.1 * 1000 * units.fs)
    reference.calculate(number_of_segments=2)
    ase = [slope[0] * 1000 * units.fs for slope in reference.get_diffusion_coefficients()[:1]]
    analysis = Diffusion(39, block=40, every=40, window=(0.0, 1.0))
    for snapshot in stream(frames, reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert found.blocks == 2
    assert ase
    # ASE fits the point at time 0 as well, where the displacement is zero
    lags, msd = np.append(0.0, found.lags), found.msd.value
    order = [str(name) for name in reference.types_of_atoms]
    for row, name in enumerate(found.names):
        mine = np.polyfit(lags, np.append(0.0, msd[row]), 1)[0] / 6
        theirs = reference.get_diffusion_coefficients()[0][order.index(name)] * 1000 * units.fs
        assert_allclose(mine, theirs, rtol=1e-6)


def test_the_mean_squared_displacement_is_that_of_freud():
    """At all lags and for both elements: four stretches with one time origin each."""
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    paths, frames = wandering(81)
    analysis = Diffusion(20, block=20, every=20)
    for snapshot in stream(frames, reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert found.blocks == 4
    for row, name in enumerate(found.names):
        mine = frames[0].symbols == name
        direct = [
            freud.msd.MSD(mode="direct").compute(paths[begin : begin + 21, mine]).msd[1:] for begin in (0, 20, 40, 60)
        ]
        assert_allclose(found.msd.value[row], np.mean(direct, axis=0), rtol=1e-4)  # freud's are float32


def layered() -> Iterator[Atoms]:
    rng = np.random.default_rng(5)
    z = rng.random(400) * 20
    flat = rng.random((400, 2)) * 10
    width = np.sqrt(2 * 0.1 * np.where(z < 10, 1.0, 0.25))[:, None]
    for k in range(201):
        yield Atoms("Li400", np.column_stack([flat, z]), cell=[10, 10, 20], pbc=True, info={"time_ps": 0.1 * k})
        flat = flat + rng.normal(size=(400, 2)) * width


def test_layers_have_their_own_diffusion_along_and_none_across():
    analysis = Diffusion(10, grouping=by_layer(["Li"], [0.0, 0.5], ["lower", "upper"]))
    for snapshot in stream(layered(), reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert found.names == ["Li, lower", "Li, upper"]
    assert_allclose(found.along.value, [1.0, 0.25], rtol=0.1)
    assert_allclose(found.across.value, 0.0, atol=1e-12)
    assert_allclose(found.atoms.sum(), 400)


def test_an_unfinished_stretch_does_not_change_the_number_of_atoms():
    analysis = Diffusion(8, every=2, block=16)
    for snapshot in stream(wandering(45)[1], reference="none"):
        analysis.add(snapshot)
    assert analysis.result().atoms.tolist() == [6.0, 6.0]


def test_conductivity_of_one_molar_ions():
    # kappa = F^2 c D / (R T) with D = 1e-9 m^2/s, c = 1 mol/l at 298.15 K, single charge
    expected = 96485.332**2 * 1000 * 1e-9 / (8.314462618 * 298.15) / 100  # S/cm
    volume = 1e27 / 6.02214076e23  # Angstrom^3 per ion
    assert_allclose(nernst_einstein(Estimate(0.1, 0.01), 1, volume, 298.15).value, expected, rtol=1e-6)


def test_activation_energy_of_exact_values_and_its_propagated_error():
    kelvin = np.array([500.0, 600.0, 700.0, 800.0])
    values = 3.0 * np.exp(-0.35 / (units.kB * kelvin))
    fit = fit_arrhenius(kelvin, [Estimate(v, 0.1 * v) for v in values])
    assert_allclose(fit.activation_energy.value, 0.35, rtol=1e-9)
    x = 1 / (units.kB * kelvin)
    assert_allclose(fit.activation_energy.error, 0.1 / np.sqrt(((x - x.mean()) ** 2).sum()), rtol=1e-9)
    assert_allclose(fit.at(650.0), 3.0 * np.exp(-0.35 / (units.kB * 650)), rtol=1e-9)


def sheared(rate: float, noise: float) -> Iterator[Atoms]:
    rng = np.random.default_rng(2)
    start = np.stack(np.meshgrid(*[np.arange(6) * 3.0] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + 1.0
    for k in range(61):
        positions = start + noise * rng.normal(size=start.shape) * (k > 0)
        positions[:, 0] += rate * 0.1 * k * (start[:, 2] - start[:, 2].mean())
        yield Atoms(f"Li{len(start)}", positions, cell=[18, 18, 18], pbc=True, info={"time_ps": 0.1 * k})


def test_shear_is_found_and_is_affine():
    analysis = Creep(width=3.0, block=15, neighbours=0.0)
    for snapshot in stream(sheared(0.01, 0.0)):
        analysis.add(snapshot)
    found = analysis.result()
    assert_allclose(found.strain_rate.value, [0.01, 0.0, 0.0], atol=1e-9)
    assert_allclose(found.velocity.value[:, 0], 0.01 * (found.heights - found.heights.mean()), atol=1e-9)
    assert len(found.heights) == 6


def test_nonaffine_motion_is_the_noise_and_not_the_strain():
    def last(noise: float, rate: float) -> np.ndarray:
        analysis = Creep(np.arange(216) % 36 // 6 < 6, width=3.0, block=15, neighbours=3.2, every=60)
        for snapshot in stream(sheared(rate, noise)):
            analysis.add(snapshot)
        return analysis.result().nonaffine[-1]

    inner = slice(1, 5)  # layers whose bonds do not cross the boundary, where the shear has a jump
    assert_allclose(last(0.0, 0.02)[inner], 0.0, atol=1e-12)
    assert_allclose(last(0.1, 0.02)[inner].mean(), last(0.1, 0.0)[inner].mean(), rtol=1e-6)
    # of a pair of opposite bonds the fit leaves the mean of both ends less the centre: sigma^2 (1/2 + 1) per component
    assert_allclose(last(0.1, 0.0).mean(), 4.5 * 0.1**2, rtol=0.1)


def test_unequal_times_are_refused():
    analysis = Diffusion(3)
    frames = [Atoms("Li", cell=[5, 5, 5], pbc=True, info={"time_ps": t}) for t in (0.0, 0.1, 0.3)]
    first, second, third = stream(frames)
    analysis.add(first)
    analysis.add(second)
    with pytest.raises(ValueError, match="Frame 2 is not where"):
        analysis.add(third)
