"""Environments of atoms: known crystals, invariances, streaming, files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from ase.neighborlist import neighbor_list
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score

from asenequip.cluster import SOAP, Averaged, CallableDescriptor, EnvironmentClusters, KStarNN, PAk, cluster_file
from tests.realdata import real_data

CUTOFF = 5.0


def shells(atoms: Atoms) -> np.ndarray:
    """Smooth counts of neighbours in eight shells and of pairs of near neighbours in six ranges of angle."""
    i, d, v = neighbor_list("idD", atoms, CUTOFF)
    centres = np.linspace(2.0, CUTOFF, 8)
    radial = np.zeros((len(atoms), 8))
    np.add.at(radial, i, np.exp(-(((d[:, None] - centres) / 0.35) ** 2)))
    angular = np.zeros((len(atoms), 6))
    for atom in range(len(atoms)):
        near = v[(i == atom) & (d < 3.6)]
        if len(near) > 1:
            unit = near / np.linalg.norm(near, axis=1, keepdims=True)
            cosine = (unit @ unit.T)[np.triu_indices(len(near), 1)]
            angular[atom] = np.exp(-(((cosine[:, None] - np.linspace(-1, 0.8, 6)) / 0.2) ** 2)).sum(0) / 10
    return np.hstack([radial, angular])


def shaken(kind: str, size: int, seed: int, noise: float = 0.06) -> Atoms:
    options = {"fcc": 3.6, "bcc": 2.87, "hcp": 2.55}
    atoms = bulk("Cu", kind, a=options[kind], cubic=kind != "hcp") * (size, size, size)
    atoms.positions += np.random.default_rng(seed).normal(size=atoms.positions.shape) * noise
    return atoms


@pytest.fixture(scope="module")
def crystals() -> tuple[list[Atoms], np.ndarray]:
    frames = [shaken("fcc", 4, 0), shaken("bcc", 5, 1), shaken("hcp", 5, 2)]
    return frames, np.repeat(np.arange(3), [len(f) for f in frames])


@pytest.fixture(scope="module")
def fitted(crystals) -> EnvironmentClusters:
    return EnvironmentClusters(shells, density=PAk()).fit(crystals[0])


def test_three_crystals_are_three_classes(crystals, fitted):
    frames, truth = crystals
    out = fitted.transform(frames)
    labels = np.concatenate([f.arrays["cluster"] for f in out])
    assert fitted.n_clusters_ == 3
    assert adjusted_rand_score(truth, labels) > 0.98
    for name, kind in (("cluster", "i"), ("cluster_probability", "f"), ("log_density", "f"), ("halo", "b")):
        assert all(f.arrays[name].dtype.kind == kind and len(f.arrays[name]) == len(f) for f in out)


def test_frames_given_are_not_changed(crystals, fitted):
    before = set(crystals[0][0].arrays)
    fitted.transform(crystals[0])
    assert set(crystals[0][0].arrays) == before


def test_rotation_order_and_supercell_do_not_change_classes(crystals, fitted):
    atoms = crystals[0][1]
    reference = fitted.transform(atoms)[0].arrays["cluster"]
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    order = np.random.default_rng(0).permutation(len(atoms))
    assert_array_equal(fitted.transform(turned)[0].arrays["cluster"], reference)
    assert_array_equal(fitted.transform(atoms[order])[0].arrays["cluster"], reference[order])
    assert_array_equal(fitted.transform(atoms * (2, 1, 1))[0].arrays["cluster"], np.tile(reference, 2))


def test_order_of_frames_does_not_change_densities(crystals, fitted):
    other = EnvironmentClusters(shells, density=PAk()).fit(crystals[0][::-1])
    one, two = fitted.transform(crystals[0][0])[0], other.transform(crystals[0][0])[0]
    assert_allclose(two.arrays["log_density"], one.arrays["log_density"], atol=1e-8)


def test_perfect_crystals_are_one_class_per_site():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    out = EnvironmentClusters(shells).fit_transform([salt, bulk("Cu", "fcc", a=3.6, cubic=True) * 2])
    # without elements in the descriptor the two sites of rock salt are alike
    assert len(np.unique(out[0].arrays["cluster"])) == 1
    assert np.isfinite(out[0].arrays["log_density"]).all()
    assert out[0].arrays["cluster"][0] != out[1].arrays["cluster"][0]


def test_species_apart_have_clusters_of_their_own():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 3
    salt.positions += np.random.default_rng(3).normal(size=salt.positions.shape) * 0.05
    out = EnvironmentClusters(shells, species="separately", density=KStarNN()).fit_transform(salt)[0]
    sodium = set(out.arrays["cluster"][salt.symbols == "Na"])
    chlorine = set(out.arrays["cluster"][salt.symbols == "Cl"])
    assert not sodium & chlorine


def test_a_window_averages_consecutive_frames():
    frames = [shaken("fcc", 3, seed) for seed in range(5)]
    seen = []

    def record(atoms: Atoms) -> np.ndarray:
        seen.append(shells(atoms))
        return seen[-1]

    model = EnvironmentClusters(record, window=3, density=KStarNN()).fit(frames)
    rows = model.models_[0].density_.landscape_
    points = rows.support.points[rows.support.inverse].reshape(5, len(frames[0]), -1)
    expected = [np.mean(seen[max(0, t - 1) : t + 2], axis=0) for t in range(5)]
    assert_allclose(points, expected, atol=1e-12)


def test_averaging_over_neighbours_is_the_mean_over_a_shell():
    atoms = shaken("fcc", 3, 7)
    atoms.symbols[::4] = "Ni"
    distances = atoms.get_all_distances(mic=True)
    alike = (distances < 3.0) & (atoms.numbers[:, None] == atoms.numbers)
    rows = np.random.default_rng(8).normal(size=(len(atoms), 4))
    expected = [rows[near].mean(axis=0) for near in alike]
    assert_allclose(Averaged(lambda _: rows, 3.0)(atoms), expected, atol=1e-12)


def test_averaged_soap_loads_without_help(tmp_path):
    pytest.importorskip("dscribe.descriptors", reason="DScribe is not installed: pip install dscribe")
    atoms = shaken("fcc", 3, 9)
    model = EnvironmentClusters(Averaged(SOAP(["Cu"]), 3.2), components=4, density=KStarNN()).fit(atoms)
    again = EnvironmentClusters.load(model.save(tmp_path / "clusters.npz"))
    assert_array_equal(again.transform(atoms)[0].arrays["log_density"], model.transform(atoms)[0].arrays["log_density"])


def test_streaming_reads_no_further_than_the_window(fitted, crystals):
    read_so_far = []

    def frames():
        for index in range(10):
            read_so_far.append(index)
            yield crystals[0][0]

    next(fitted.stream(frames()))
    assert len(read_so_far) <= fitted.window


def test_a_saved_model_gives_the_same_in_another_process(tmp_path, crystals, fitted):
    path = fitted.save(tmp_path / "clusters.npz")
    rows = shells(crystals[0][0]) + 0.01
    np.save(tmp_path / "rows.npy", rows)
    code = (
        "import sys, json, numpy as np\n"
        "from asenequip.cluster import EnvironmentClusters\n"
        "m = EnvironmentClusters.load(sys.argv[1], lambda a: None)\n"
        "found = m.models_[0].predict_all(np.load(sys.argv[2]))\n"
        "print(json.dumps({k: v.tolist() for k, v in found.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "rows.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    there = json.loads(done.stdout)
    for name, values in fitted.models_[0].predict_all(rows).items():
        assert_array_equal(there[name], values)


def test_a_saved_model_holds_no_pickle(tmp_path, fitted):
    path = fitted.save(tmp_path / "clusters.npz")
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiu" for name in file.files)


def test_clusters_are_not_applied_with_another_descriptor(tmp_path, crystals):
    mine = CallableDescriptor(shells, "potential a1")
    path = EnvironmentClusters(mine, density=KStarNN()).fit(crystals[0][:2]).save(tmp_path / "clusters.npz")
    assert EnvironmentClusters.load(path, mine).descriptor is mine
    with pytest.raises(ValueError, match=r"fitted with the descriptor 'potential a1', and 'potential b2' was given"):
        EnvironmentClusters.load(path, CallableDescriptor(shells, "potential b2"))


def test_a_file_of_something_else_is_no_clusters(tmp_path):
    (tmp_path / "clusters.npz").write_text("cluster,size\n0,12\n")
    with pytest.raises(ValueError, match="holds no clusters of environments"):
        EnvironmentClusters.load(tmp_path / "clusters.npz")


def test_the_command_applies_clusters_with_the_soap_they_were_fitted_with(tmp_path):
    pytest.importorskip("dscribe.descriptors", reason="DScribe is not installed: pip install dscribe")
    from asenequip.cli.cluster import cluster

    alloy, copper = shaken("fcc", 3, 10), shaken("fcc", 3, 11)
    alloy.symbols[::2] = "Ni"
    write(tmp_path / "alloy.extxyz", alloy)
    write(tmp_path / "copper.extxyz", copper)
    cluster(tmp_path / "alloy.extxyz", tmp_path / "fitted", soap=True, soap_cutoff=3.0, figures=False)
    saved = tmp_path / "fitted" / "clusters.npz"
    cluster(tmp_path / "copper.extxyz", tmp_path / "applied", soap=True, clusters=saved, figures=False)
    expected = EnvironmentClusters.load(saved).transform(copper)[0]
    found = read(tmp_path / "applied" / "clustered.extxyz")
    assert_array_equal(found.arrays["cluster"], expected.arrays["cluster"])


def test_cluster_file_writes_frames_table_and_figures(tmp_path, crystals):
    frames, truth = crystals
    write(tmp_path / "traj.xyz", frames)
    report = cluster_file(tmp_path / "traj.xyz", tmp_path / "out", descriptor=shells, density=PAk())
    out = read(tmp_path / "out" / "clustered.extxyz", ":")
    labels = np.concatenate([f.arrays["cluster"] for f in out])
    assert adjusted_rand_score(truth, labels) > 0.98
    assert sum(row.size for row in report.rows) == len(truth) == report.n_atoms
    assert all(path.stat().st_size > 0 for path in report.files)
    assert len(read(tmp_path / "out" / "representatives.extxyz", ":")) == len(report.rows)
    with pytest.raises(FileExistsError, match="not overwritten"):
        cluster_file(tmp_path / "traj.xyz", tmp_path / "out", descriptor=shells)
    applied = cluster_file(
        tmp_path / "traj.xyz",
        tmp_path / "again",
        descriptor=shells,
        clusters=tmp_path / "out" / "clusters.npz",
        figures=False,
    )
    assert [row.size for row in applied.rows] == [row.size for row in report.rows]


def test_what_a_watch_raises_ends_the_work_with_the_clusters_kept(tmp_path, crystals):
    write(tmp_path / "traj.xyz", crystals[0])

    def watch(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster_file(tmp_path / "traj.xyz", tmp_path / "out", descriptor=shells, density=PAk(), watch=watch)
    assert EnvironmentClusters.load(tmp_path / "out/clusters.npz", shells).n_clusters_ == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clusters.npz"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"descriptor": None}, "The 'descriptor' parameter of EnvironmentClusters must be"),
        ({"descriptor": shells, "window": 2}, "The 'window' parameter of EnvironmentClusters must be"),
        ({"descriptor": shells, "species": "all"}, "The 'species' parameter of EnvironmentClusters must be"),
        ({"descriptor": lambda atoms: np.zeros(3)}, "one row for each of the 1 atoms of frame 0"),
        ({"descriptor": lambda atoms: np.full((1, 2), np.nan)}, "atom 0 in frame 0 is not finite"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        EnvironmentClusters(**options).fit(bulk("Cu"))


def test_soap_tells_crystals_apart():
    pytest.importorskip("dscribe.descriptors", reason="DScribe is not installed: pip install dscribe")
    frames = [shaken("fcc", 4, 0, 0.03), shaken("bcc", 5, 1, 0.03), shaken("hcp", 5, 2, 0.03)]
    truth = np.repeat(np.arange(3), [len(f) for f in frames])
    out = EnvironmentClusters(SOAP(), components=10).fit_transform(frames)
    assert adjusted_rand_score(truth, np.concatenate([f.arrays["cluster"] for f in out])) > 0.98


@pytest.fixture(scope="module")
def electrolyte():
    """Li6PS5Cl in motion, and lithium, phosphorus, chlorine, sulfur of PS4 and free sulfur."""
    frames = read(real_data("lpscl_aimd_traj/0p_run1_actual_every2.extxyz.gz"), "::12")
    truth = []
    for atoms in frames:
        kinds = atoms.numbers.copy()
        sulfur, phosphorus = np.flatnonzero(kinds == 16), np.flatnonzero(kinds == 15)
        near = atoms.get_all_distances(mic=True)[np.ix_(sulfur, phosphorus)].min(axis=1)
        kinds[sulfur[near > 2.8]] = 0
        truth.append(kinds)
    return frames, truth


def test_sites_of_an_electrolyte_are_classes_whatever_the_view(electrolyte):
    pytest.importorskip("dscribe.descriptors", reason="DScribe is not installed: pip install dscribe")
    frames, truth = electrolyte
    model = EnvironmentClusters(SOAP(["Li", "P", "S", "Cl"]), components=10, species="separately").fit(frames)
    out = model.transform(frames)
    assert adjusted_rand_score(np.concatenate(truth), np.concatenate([a.arrays["cluster"] for a in out])) > 0.99
    turned, order = frames[0].copy(), np.random.default_rng(0).permutation(len(frames[0]))
    turned.rotate(50, (3, 1, 2), rotate_cell=True)
    density = out[0].arrays["log_density"]
    for changed, expected in (
        (turned, density),
        (frames[0][order], density[order]),
        (frames[0] * (2, 1, 1), np.tile(density, 2)),
    ):
        # the error of DScribe's sums is 1e-9; densities vary as the tenth power of distances and more
        assert_allclose(model.transform(changed)[0].arrays["log_density"], expected, atol=1e-4)


@pytest.mark.slow
def test_memory_stays_flat_while_frames_stream(tmp_path):
    code = """
import resource
import numpy as np
from ase.build import bulk
from asenequip.cluster import EnvironmentClusters, KStarNN, nearest_neighbours

def shaken(seed):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (10, 5, 5)
    atoms.positions += np.random.default_rng(seed).normal(size=(len(atoms), 3)) * 0.1
    return atoms

def near(atoms):
    return nearest_neighbours(atoms.positions, 12, period=atoms.cell.lengths()).distances[:, 1:]

model = EnvironmentClusters(near, density=KStarNN(), sample=4000).fit(shaken(seed) for seed in range(5))
held = []
for frame, _ in enumerate(model.stream(shaken(seed) for seed in range(150))):
    if frame in (20, 149):
        held.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(held[1] - held[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 16  # MiB; the frames themselves would hold 20
