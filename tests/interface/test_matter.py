"""Profiles, growth, classes, structure and phases, against systems whose answer is known and against other programs."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_allclose

from asenequip.interface import (
    Bonds,
    Choices,
    Environments,
    Phases,
    Populations,
    Profiles,
    Radial,
    Rule,
    analyse,
    bond_order,
    build_interface,
    by_cluster,
    by_species,
    find_fronts,
    fit_growth,
    interphase_thickness,
    make_crystal,
    make_references,
    occupy,
    short_range_order,
    stream,
)
from asenequip.interface.build import Side
from asenequip.interface.profiles import ProfileResult
from asenequip.interface.statistics import Estimate


def feed(analysis, frames, **options):
    for snapshot in stream(frames, **options):
        analysis.add(snapshot)
    return analysis.result()


def timed(frames: list[Atoms]) -> list[Atoms]:
    for k, frame in enumerate(frames):
        frame.info["time_ps"] = float(k)
    return frames


# -- profiles and fronts ----------------------------------------------------------------------------------------------


def test_density_integrates_to_the_number_of_atoms():
    atoms = build_interface(Side("Li", thickness=10.0), Side("Li6PS5Cl", thickness=10.0))
    found = feed(Profiles(30), timed([atoms.copy() for _ in range(4)]))
    area, width = np.linalg.norm(np.cross(*atoms.cell.array[:2])), found.length / 30
    for name, total in zip(found.names, (found.density.value * area * width).sum(axis=1), strict=True):
        assert_allclose(total, (atoms.symbols == name).sum())
    assert_allclose(np.nansum(found.share().value, axis=0)[found.density.value.sum(axis=0) > 0], 1.0)


def test_a_drifting_slab_has_the_profile_of_one_at_rest():
    start = build_interface(Side("Cu", thickness=8.0), Side("Ni", thickness=8.0), max_area=60)
    rest = feed(Profiles(20), timed([start.copy() for _ in range(6)]))
    moving = []
    for k in range(6):
        atoms = start.copy()
        atoms.positions += [0.3 * k, 0.1 * k, 0.7 * k]
        atoms.wrap()
        moving.append(atoms)
    assert_allclose(feed(Profiles(20), timed(moving)).density.value, rest.density.value, atol=1e-9)


def layer(heights: np.ndarray, lower: float, upper: float, width: float, length: float) -> np.ndarray:
    return sum(
        0.5 * (np.tanh((heights - lower - s) / width) - np.tanh((heights - upper - s) / width))
        for s in (-length, 0.0, length)
    )


def made_profile(groups: dict[str, list[np.ndarray]], length: float) -> ProfileResult:
    series = np.stack([np.array(rows) for rows in groups.values()], axis=1)
    bins = series.shape[2]
    mean = series.mean(axis=0)
    heights = (np.arange(bins) + 0.5) * length / bins
    return ProfileResult(
        list(groups), heights, Estimate(mean, 0 * mean), np.arange(len(series), dtype=float), series, length, 1e-9
    )


def test_fronts_and_the_interphase_between_them_are_found_across_the_boundary():
    length, z = 60.0, (np.arange(240) + 0.5) / 4
    growth = 0.5 * np.arange(16)
    metal = [0.05 * layer(z, 45 + g / 2, 75 - g / 2, 1.0, length) for g in growth]  # across the boundary, to 15
    solid = [0.02 * layer(z, 17 + g / 2, 43 - g / 2, 1.5, length) for g in growth]
    profile = made_profile({"metal": metal, "solid": solid}, length)
    one, two = find_fronts(profile, ["metal"]), find_fronts(profile, ["solid"])
    assert_allclose(np.diff(two.lower), 0.25, atol=0.01)
    found = interphase_thickness(one, two)
    assert_allclose(np.diff(found, axis=0), 0.5, atol=0.02)
    assert_allclose(found[0], 2.0, atol=0.3)


def test_widths_are_from_10_to_90_percent():
    z = (np.arange(400) + 0.5) / 10
    profile = made_profile({"a": [0.1 * layer(z, 10, 30, 2.0, 40.0)] * 8}, 40.0)
    fronts = find_fronts(profile, ["a"])
    share = layer(np.linspace(0, 20, 20001), 10, 30, 2.0, 40.0)
    width = (np.searchsorted(share, 0.9) - np.searchsorted(share, 0.1)) / 1000
    assert_allclose(fronts.widths.value, width, rtol=0.01)
    assert_allclose(fronts.faces.value, [10, 30], atol=0.01)


# -- growth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["none", "linear", "parabolic"])
def test_the_law_that_made_the_thickness_is_the_best(law):
    times = np.linspace(0, 50, 300)
    clean = {"none": 0 * times + 5, "linear": 5 + 0.3 * times, "parabolic": np.sqrt(25 + 2 * 4 * times)}[law]
    fits = fit_growth(times, clean + np.random.default_rng(1).normal(scale=0.2, size=300))
    assert fits[0].law == law
    assert_allclose(sum(fit.weight for fit in fits), 1.0)


def test_a_growing_layer_is_found_with_its_rate_from_the_frames():
    """Faces that move through a gas by 0.02 Angstrom/ps each, through the whole analysis."""
    rng = np.random.default_rng(6)
    places, frames = rng.random((4000, 3)) * [20, 20, 60], []
    for time in range(120):
        grown = 0.02 * time
        atoms = Atoms("Li4000", places + rng.normal(scale=0.05, size=(4000, 3)), cell=[20, 20, 60], pbc=True)
        solid = np.abs(places[:, 2] - 30) < 11 - grown
        metal = np.abs(places[:, 2] - 30) > 15 + grown
        atoms.set_array("cluster", np.select([metal, solid], [0, 1], 2))
        frames.append(atoms)
    names = ["metal", "solid", "between"]
    choices = Choices(
        classes=by_cluster(names), electrode=["metal"], electrolyte=["solid"], references=(), structure_every=60
    )
    found = analyse(timed(frames), choices=choices)
    assert_allclose(found.thickness[0], 4.0, atol=0.3)
    for fits in found.growth.values():
        assert fits[0].law == "linear"
        assert_allclose(fits[0].parameters.value, [4.0, 0.04], rtol=0.08)


# -- classes and bonds ------------------------------------------------------------------------------------------------


def test_classes_of_an_intact_interface():
    atoms = build_interface(Side("Li", thickness=20.0), Side("Li6PS5Cl", thickness=10.0))
    labels, names = Environments()(next(stream(timed([atoms]))))
    counts = dict(zip(names, np.bincount(labels, minlength=len(names)), strict=True))
    assert counts["P in PS4"] == (atoms.symbols == "P").sum()
    assert counts["P in PS1-3"] == counts["P without S"] == 0
    assert counts["S bound to P"] == 4 * counts["S without P"] == 16
    inside = labels[(atoms.get_tags() == 2) & (atoms.symbols == "Li")]
    assert (inside == names.index("Li ionic")).all()
    assert counts["Li metal"] > 0.6 * (atoms.get_tags() == 1).sum()


def test_rules_count_neighbours_within_their_bounds():
    atoms = Atoms("PSSS", [[5, 5, 5], [7, 5, 5], [5, 7, 5], [5, 5, 9]], cell=[20, 20, 20], pbc=True)
    rules = [Rule("three", "P", ("S",), 2.5, 3), Rule("two", "P", ("S",), 2.5, 2, 2), Rule("S", "S")]
    labels, _ = Environments(rules)(next(stream(timed([atoms]))))
    assert labels.tolist() == [1, 2, 2, 2]


def test_bonds_have_hysteresis():
    distances = [2.0, 2.8, 2.5, 2.9, 3.2, 2.8, 2.4, 2.0]  # breaks at 3.2, forms again at 2.4
    frames = [Atoms("PS", [[5, 5, 5], [5 + d, 5, 5]], cell=[20, 20, 20], pbc=True) for d in distances]
    found = feed(Bonds("P", "S", 2.6, 3.0), timed(frames), reference="none")
    assert (found.broken, found.formed) == (1, 1)
    assert [(t, sign) for t, *_, sign in found.events] == [(4.0, -1), (6.0, 1)]
    assert found.bonds.tolist() == [1, 1, 1, 1, 0, 0, 1, 1]


def test_populations_count_every_frame():
    frames = timed([Atoms("LiS", [[0, 0, 0], [1, 1, 1]], cell=[5, 5, 5], pbc=True) for _ in range(3)])
    found = feed(Populations(by_species), frames)
    assert found.names == ["Li", "S"]
    assert found.counts.tolist() == [[1, 1]] * 3


# -- structure --------------------------------------------------------------------------------------------------------


def shaken(atoms: Atoms, frames: int, noise: float) -> list[Atoms]:
    found = []
    for seed in range(frames):
        moved = atoms.copy()
        moved.positions += np.random.default_rng(seed).normal(scale=noise, size=moved.positions.shape)
        found.append(moved)
    return timed(found)


def test_radial_distribution_is_that_of_freud():
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    frames = shaken(make_crystal("LiCl").repeat(3), 3, 0.2)
    found = feed(Radial(6.0, bins=40), frames)
    rdf = freud.density.RDF(bins=40, r_max=6.0)
    for k, frame in enumerate(frames):
        cl, li = (frame.positions[frame.symbols == s] for s in ("Cl", "Li"))
        box = freud.box.Box.from_matrix(frame.cell.array.T)
        rdf.compute((box, cl), query_points=li, neighbors={"mode": "ball", "r_max": 6.0}, reset=k == 0)
    mine = found.g.value[found.pairs.index(("Li", "Cl"))]
    assert_allclose(mine, rdf.rdf, rtol=5e-3, atol=5e-3)


def test_coordination_of_crystals():
    found = feed(
        Radial(4.0, bins=40), timed([occupy(make_crystal("Li6PS5Cl").repeat(2), np.random.default_rng(0))] * 2)
    )
    assert_allclose(found.coordination("P", "S", 2.6).value, 4.0)
    assert_allclose(found.coordination("S", "P", 2.6).value, 0.8)
    cubic = feed(Radial(4.0, bins=40), timed([make_crystal("LiCl").repeat(2)] * 2))
    assert_allclose(cubic.coordination("Li", "Cl", 3.0).value, 6.0)


@pytest.mark.parametrize(
    ("kind", "neighbours", "expected"),
    [("fcc", 12, (0.191, 0.575)), ("hcp", 12, (0.097, 0.485)), ("bcc", 14, (0.036, 0.511)), ("bcc", 8, (0.509, 0.629))],
)
def test_bond_order_of_perfect_crystals(kind, neighbours, expected):
    # P. J. Steinhardt et al., Phys. Rev. B 28, 784 (1983); W. Mickel et al., J. Chem. Phys. 138, 044501 (2013)
    atoms = bulk("Cu", kind, a=3.0, **({"c": 3.0 * np.sqrt(8 / 3)} if kind == "hcp" else {})).repeat(4)
    assert_allclose(bond_order(atoms, neighbours=neighbours), np.broadcast_to(expected, (len(atoms), 2)), atol=1e-3)


def test_bond_order_is_that_of_freud():
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    atoms = shaken(bulk("Cu", cubic=True).repeat(4), 1, 0.15)[0]
    centres = np.array([5, 17, 200, 3])
    mine = bond_order(atoms, (4, 6), centres=centres)
    box = freud.box.Box.from_matrix(atoms.cell.array.T)
    for column, degree in enumerate((4, 6)):
        query = freud.order.Steinhardt(degree).compute((box, atoms.positions), neighbors={"num_neighbors": 12})
        assert_allclose(mine[:, column], query.particle_order[centres], atol=2e-5)


@pytest.mark.parametrize(("order", "expected"), [("rocksalt", -1.0), ("separated", 1.0)])
def test_short_range_order_of_ordered_lattices(order, expected):
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    first = grid.sum(axis=1) % 2 == 0 if order == "rocksalt" else grid[:, 2] < 4
    atoms = Atoms(np.where(first, "Li", "Cl"), grid * 3.0, cell=[24.0] * 3, pbc=True)
    found = short_range_order(atoms, "Li", "Cl", 3.5)
    # of the 6 neighbours of the separated halves those across two faces are unlike: 2 of 24 neighbours per column
    assert_allclose(found, expected if order == "rocksalt" else 1 - 2 * 2 / 24 * 1, atol=1e-12)


# -- phases -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def references():
    return make_references(["Li", "Li2S", "Li3P", "LiCl", "Li6PS5Cl"])


@pytest.mark.parametrize("name", ["Li", "Li2S", "LiCl", "Li3P"])
@pytest.mark.parametrize("strain", [0.0, 0.03])
def test_shaken_and_strained_crystals_are_named(references, name, strain):
    atoms = make_crystal(name).repeat(3)
    atoms.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
    for phase in feed(Phases(by_species, references, centres=60), shaken(atoms, 2, 0.1)):
        assert phase.crystal == name
        assert phase.site.split()[0] == phase.group
        assert not phase.mixed
        if name != "Li3P":  # two sites of Li, of which the better one is named
            assert abs(phase.strain - strain) <= 0.011


def test_a_mixed_crystal_is_told_with_its_shares(references):
    atoms = make_crystal("Li2S").repeat(4)
    rng = np.random.default_rng(0)
    anions = np.flatnonzero(atoms.symbols == "S")
    kinds = rng.permutation(np.repeat(["S", "P", "Cl"], [round(0.72 * 256), 36, 36]))
    symbols = np.array(atoms.get_chemical_symbols(), dtype=object)
    symbols[anions] = kinds
    atoms.set_chemical_symbols(list(symbols))

    def anions_and_lithium(snapshot):
        return (snapshot.atoms.symbols == "Li").astype(np.int64), ["anions", "lithium"]

    phase = feed(Phases(anions_and_lithium, references, centres=100), shaken(atoms, 2, 0.15))[0]
    assert (phase.crystal, phase.site, phase.mixed) == ("Li2S", "S", True)
    assert_allclose([phase.composition[s] for s in ("S", "P", "Cl")], [0.72, 0.14, 0.14], atol=0.005)
    assert phase.name == "S(0.72) Cl(0.14) P(0.14) on the S site of Li2S: a mixed crystal"


def test_a_gas_is_like_no_reference(references):
    rng = np.random.default_rng(0)
    frames = timed([Atoms("Li200", rng.random((200, 3)) * 16, cell=[16.0] * 3, pbc=True) for _ in range(2)])
    found = feed(Phases(by_species, references), frames, reference="none")
    assert found[0].crystal == ""
