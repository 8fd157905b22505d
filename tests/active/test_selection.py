"""Choosing frames and cutting environments out: known answers, brute force, and periodic copies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from small_systems import small_atoms

from asenequip import AllegroCalculator
from asenequip.active import cut_out, drop_duplicates, farthest_points, select, select_frames
from asenequip.active.novelty import Novelty, Sparsity
from asenequip.active.selection import METHODS, describe_frames


def coordination(atoms: Atoms) -> np.ndarray:
    """Two numbers per atom that tell its surroundings: sums of exponentials of the distances."""
    from ase.neighborlist import neighbor_list

    centers, distances = neighbor_list("id", atoms, 5.0)
    columns = [np.bincount(centers, np.exp(-distances / width), minlength=len(atoms)) for width in (0.5, 1.0)]
    return np.stack(columns, axis=1)


def test_farthest_points_on_a_line_are_the_ends_then_the_middle():
    line = np.array([0.0, 1, 2, 3, 5, 7.4, 10])[:, None]
    assert line[farthest_points(line, 3, known=np.array([[0.0]])), 0].tolist() == [10, 5, 7.4]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_farthest_points_leave_at_most_twice_the_least_distance(seed, count):
    """Gonzalez's bound, against the best choice by trying all."""
    from itertools import combinations

    points = np.random.default_rng(seed).uniform(size=(8, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    def left(chosen):
        return distances[:, list(chosen)].min(axis=1).max()

    best = min(left(chosen) for chosen in combinations(range(8), count))
    assert left(farthest_points(points, count)) <= 2 * best + 1e-12


def test_nothing_is_chosen_twice_and_duplicates_never():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(5, 3)), 3, axis=0)
    for method in METHODS:
        chosen = select(
            points, 15, method=method, uncertainties=rng.uniform(size=15), novelties=rng.uniform(size=15)
        ).indices
        assert len(chosen) == 5
        assert len({tuple(points[k]) for k in chosen}) == 5
    assert drop_duplicates(points, known=points[:3]).tolist() == [3, 6, 9, 12]


def test_of_many_points_each_is_kept_once():
    """20,000 points at whole numbers, each but the first 5000 a copy of one of these that is off by little."""
    rng = np.random.default_rng(0)
    corners = np.unique(rng.integers(0, 1000, (6000, 8)), axis=0)[:5000].astype(float)
    copies = corners[rng.integers(0, 5000, 15_000)] + rng.uniform(-1e-5, 1e-5, (15_000, 8))
    points = np.concatenate([corners, copies])
    assert drop_duplicates(points).tolist() == list(range(5000))
    assert drop_duplicates(points, known=copies[:3000] + 1e-5).size == 5000 - len(
        np.unique(copies[:3000].round(), axis=0)
    )


@given(st.lists(st.integers(0, 12), max_size=12), st.lists(st.integers(0, 12), max_size=3), st.integers(0, 3))
def test_duplicates_are_those_near_an_earlier_one_that_is_kept(values, known, reach):
    kept: list[int] = []
    for k, value in enumerate(values):
        if all(abs(value - other) > reach for other in [*known, *(values[j] for j in kept)]):
            kept.append(k)
    points, before = (np.array(group, float).reshape(-1, 1) for group in (values, known))
    assert drop_duplicates(points, before, reach + 0.5).tolist() == kept


def test_copies_that_are_moved_turned_or_renumbered_are_duplicates_in_single_precision(small_artifact):
    calculator = AllegroCalculator(small_artifact, device="cpu")
    frames = [small_atoms(k) for k in range(6)]
    rng = np.random.default_rng(0)
    copies = [atoms[rng.permutation(len(atoms))] for atoms in frames]
    for atoms in copies:
        atoms.rotate(40, (1, 2, 3), rotate_cell=True)
        atoms.translate([0.3, -1.2, 0.7])
    shaken = [atoms.copy() for atoms in frames]
    for k, atoms in enumerate(shaken):
        atoms.rattle(0.01, seed=k)
    found = select_frames([*frames, *copies, *shaken], 18, calculator.descriptors, method="diverse")
    assert sorted(found.indices.tolist()) == [*range(6), *range(12, 18)]


def test_uncertain_takes_the_largest_and_mixed_spreads_them():
    points = np.array([[0.0], [0.01], [0.02], [5.0], [10.0]])
    doubt = np.array([1.0, 0.9, 0.95, 0.5, 0.01])
    assert select(points, 2, method="uncertain", uncertainties=doubt).indices.tolist() == [0, 2]
    assert select(points, 2, method="mixed", uncertainties=doubt).indices.tolist() == [0, 3]


def test_mixed_takes_one_of_each_new_element_first():
    points = np.array([[1.0], [2.0], [9.0], [1.1], [1.3]])
    doubt = np.array([1.0, 1.0, 9.0, 1.0, 1.0])
    elements = [set(), {"Cl"}, set(), {"Cl", "Br"}, {"Br"}]
    known = np.array([[0.0]])
    options = {"uncertainties": doubt, "known": known, "elements": elements}
    assert select(points, 3, **options).indices.tolist() == [4, 1, 2]  # of Br the farther, of Cl, and the uncertain
    assert select(points, 1, **options).indices.tolist() == [4]
    assert select(points, 2, method="diverse", known=known, elements=elements).indices.tolist() == [2, 1]


def test_a_frame_with_a_new_element_is_taken_however_like_the_known_ones_it_seems():
    known = [bulk("Cu", cubic=True) * (2, 2, 2)]
    far = [bulk("Cu", cubic=True, a=a) for a in (4.2, 4.5)]
    dilute = [known[0].copy() for _ in range(2)]
    for k, atoms in enumerate(dilute):
        atoms.symbols[k] = "Al"
        atoms.rattle(0.01 + 0.01 * k, seed=k)
    found = select_frames(
        [*far, *dilute], 2, coordination, known=known, uncertainty=lambda atoms: float(len(atoms) < 9)
    )
    assert found.indices[0] in (2, 3)
    assert found.indices[1] in (0, 1)
    assert "new element Al" in found.reasons[0]


def test_infinite_novelty_counts_most_and_spoils_nothing():
    points = np.arange(4.0)[:, None]
    for novelties in ([1.0, np.inf, 1.0, 1.0], [1.0, np.inf, np.inf, np.inf]):
        chosen = select(points, 4, novelties=np.array(novelties), known=np.array([[-1.0]])).indices
        assert novelties[chosen[0]] == np.inf
        assert sorted(chosen.tolist()) == [0, 1, 2, 3]


def test_what_is_no_number_comes_last():
    points = np.arange(4.0)[:, None]
    unsure = np.array([1.0, np.nan, 1.0, 1.0])
    for method in ("mixed", "uncertain"):
        chosen = select(points, 4, method=method, uncertainties=unsure, known=np.array([[-1.0]])).indices
        assert chosen[-1] == 1


def test_no_candidates_no_choice():
    for method in ("mixed", "diverse", "random"):
        assert len(select(np.zeros((0, 3)), 4, method=method).indices) == 0
    assert len(select_frames([], 4, coordination, known=[bulk("Cu")]).indices) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "best"}, "'method' parameter of select"), ({"method": "uncertain"}, "'uncertainties' parameter")],
)
def test_wrong_wishes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        select(np.zeros((2, 1)), 1, **options)


def test_selected_frames_are_unlike_the_known_ones():
    known = [bulk("Cu", cubic=True) for _ in range(3)]
    for k, atoms in enumerate(known):
        atoms.rattle(0.02, seed=k)
    near = [atoms.copy() for atoms in known]
    for k, atoms in enumerate(near):
        atoms.rattle(0.02, seed=10 + k)
    far = bulk("Cu", cubic=True, a=4.2)
    for method in ("diverse", "novel", "sparse"):
        chosen = select_frames([*near, far], 1, coordination, method=method, known=known)
        assert chosen.indices.tolist() == [3]
        assert chosen.reasons[0].startswith(method)


def test_novelty_is_one_at_the_edge_of_the_known_and_infinite_for_new_elements():
    frames = []
    for k in range(12):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.05, seed=k)
        frames.append(atoms)
    judge = Novelty(coordination, k=3).fit(frames[:11])
    inside = judge(frames[11])
    outside = judge(bulk("Cu", "bcc", a=2.7, cubic=True))
    assert np.median(inside) < 1 < outside.min()
    assert np.isinf(judge(bulk("Al"))).all()
    assert judge.log_density(bulk("Cu", "bcc", a=2.7, cubic=True)).max() < np.median(judge.log_density(frames[11]))
    with pytest.raises(ValueError, match=r"at least 5 known environments of Cu\. The known frames have 4"):
        Novelty(coordination, k=3).fit([bulk("Cu", cubic=True)])
    with pytest.raises(ValueError, match=r"at least 12 known environments of Cu\. The known frames have 4"):
        Sparsity(coordination).fit([bulk("Cu", cubic=True)])


def blobs(shares: dict[float, int], width: float, seed: int) -> Atoms:
    """Atoms on the x axis in normal blobs: with positions as descriptor, an environment space that can be seen."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([center + width * rng.standard_normal(count) for center, count in shares.items()])
    return Atoms(numbers=[29] * len(x), positions=np.stack([x, *width * rng.standard_normal((2, len(x)))], axis=1))


def test_sparsity_is_positive_outside_of_every_cluster():
    known = [blobs({0.0: 400, 5.0: 400}, 1.0, 0)]
    judge = Sparsity(lambda atoms: atoms.positions).fit(known)
    assert judge.clusters_.n_clusters_ == 2

    def at(*x: float) -> np.ndarray:
        return judge(Atoms(numbers=[29] * len(x), positions=[[value, 0, 0] for value in x]))

    assert (at(0.0, 5.0) < -2).all()
    assert (np.diff([0, *at(-4.0, -6.0, -12.0)]) > 0).all()
    assert np.mean(judge(blobs({0.0: 200, 5.0: 200}, 1.0, 1)) > 0) < 0.05  # fresh ones of the same kind
    assert np.isinf(judge(Atoms("Al"))).all()


def test_the_halo_counts_as_outside_where_asked():
    judge = Sparsity(lambda atoms: atoms.positions, halo=True).fit([blobs({0.0: 400, 5.0: 400}, 1.0, 0)])
    fresh = blobs({0.0: 200, 5.0: 200}, 1.0, 1)
    np.testing.assert_array_equal(judge(fresh) > 0, judge.clusters_.transform([fresh])[0].arrays["halo"])


def test_a_phase_that_was_never_seen_is_found_first():
    def many(structure: str, a: float, count: int, seed: int, amplitude: float = 0.05) -> list[Atoms]:
        frames = [bulk("Cu", structure, a=a, cubic=True) * (2, 2, 2) for _ in range(count)]
        for k, atoms in enumerate(frames):
            atoms.rattle(amplitude, seed=seed + k)
        return frames

    known = many("fcc", 3.6, 8, 0) + many("sc", 2.4, 8, 20)
    pool = many("fcc", 3.6, 10, 40) + many("sc", 2.4, 10, 60) + many("bcc", 2.87, 2, 80)
    chosen = select_frames(pool, 4, coordination, method="sparse", known=known)
    assert set(chosen.indices[:2].tolist()) & {20, 21}
    assert chosen.indices[0] in (20, 21)


def test_rows_of_frames_are_intensive():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.symbols[0] = "K"
    atoms.rattle(0.1, seed=0)
    small, large = describe_frames([atoms, atoms * (2, 1, 1)], coordination)
    np.testing.assert_allclose(small, large, atol=1e-10)
    assert small[[0, 5, 10]].tolist() == [
        3 / 8,
        4 / 8,
        1 / 8,
    ]  # shares of Na, Cl, K, each before two means and deviations


CELLS = {
    "cubic": np.eye(3) * 3.6,
    "skewed": np.array([[3.6, 0, 0], [1.9, 3.3, 0], [-1.2, 0.7, 4.0]]),
    "left-handed": np.array([[0, 3.6, 0], [3.6, 0, 0], [0, 0, 3.6]]),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_cut_outs_have_every_atom_and_image_within_the_radius(cell, pbc):
    """Against a brute-force sum over images, in cells smaller than the radius."""
    rng = np.random.default_rng(3)
    atoms = Atoms("CuAlCu", scaled_positions=rng.uniform(-1, 2, (3, 3)), cell=CELLS[cell], pbc=pbc)
    radius, images = 6.0, 6
    shifts = np.array(np.meshgrid(*[np.arange(-images, images + 1) if p else [0] for p in atoms.pbc])).reshape(3, -1).T
    every = (atoms.positions[:, None] + shifts @ atoms.cell.array).reshape(-1, 3) - atoms.positions[1]
    wanted = np.sort(np.linalg.norm(every, axis=1))
    wanted = wanted[wanted <= radius]
    found = cut_out(atoms, 1, radius, cutoff=3.0).atoms
    np.testing.assert_allclose(np.sort(np.linalg.norm(found.positions - found.positions[0], axis=1)), wanted, atol=1e-9)
    assert found.symbols[0] == "Al"
    assert (found.numbers == atoms.numbers[found.arrays["original"]]).all()


def test_exact_atoms_of_a_cut_out_have_the_environment_of_the_large_cell():
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.rattle(0.1, seed=0)
    found = cut_out(atoms, 17, 7.0, cutoff=4.0, vacuum=8.0).atoms
    from ase.neighborlist import neighbor_list

    def environments(structure):
        first, distances = neighbor_list("id", structure, 4.0)
        return [np.sort(distances[first == k]) for k in range(len(structure))]

    small, large = environments(found), environments(atoms)
    exact = np.flatnonzero(found.arrays["exact"])
    assert 0 in exact
    assert 5 < len(exact) < len(found)
    for k in exact:
        np.testing.assert_allclose(small[k], large[found.arrays["original"][k]], atol=1e-9)


def test_a_radius_below_the_cutoff_is_refused():
    with pytest.raises(ValueError, match="'radius' parameter of cut_out"):
        cut_out(bulk("Cu"), 0, 3.0, cutoff=4.0)
