"""Neighbours, dimension, densities and peaks against analytic results, scipy and brute force."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from asenequip.cluster import BMTI, KNN, DensityPeaks, Gride, KStarNN, PAk, TwoNN
from asenequip.cluster.density import log_unit_ball, pak_log_density
from asenequip.cluster.edges import edge_differences
from asenequip.cluster.gradients import mean_shifts
from asenequip.cluster.graph import common_neighbours, neighbour_graph, thin_graph
from asenequip.cluster.landscape import survey
from asenequip.cluster.multigrid import conjugate_gradients, multigrid
from asenequip.cluster.neighbourhoods import k_star
from asenequip.cluster.neighbours import nearest_neighbours
from asenequip.cluster.support import distinct_points
from tests.realdata import real_data

DENSITIES = [KNN(), KStarNN(), PAk(), BMTI(samples=8)]
ROUNDING = 1e-12
"""Sums of a few hundred products of numbers of order one."""


def mixture(n: int, d: int, seed: int, centres: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of well-separated normal distributions, their component, their exact log density."""
    generator = np.random.default_rng(seed)
    middle = np.zeros((centres, d))
    middle[np.arange(centres), np.arange(centres) % d] = 12.0 * (1 + np.arange(centres) // d)
    label = generator.integers(centres, size=n)
    points = middle[label] + generator.normal(size=(n, d))
    squares = ((points[:, None, :] - middle) ** 2).sum(-1)
    return points, label, logsumexp(-0.5 * squares, axis=1) - 0.5 * d * np.log(2 * np.pi) - np.log(centres)


def all_distances(points: np.ndarray, period: np.ndarray | None = None) -> np.ndarray:
    vectors = points[:, None] - points[None]
    if period is not None:
        safe = np.where(period > 0, period, 1.0)
        vectors -= np.where(period > 0, period * np.rint(vectors / safe), 0.0)
    return np.sqrt((vectors**2).sum(-1))


@pytest.mark.parametrize("method", ["tree", "brute"])
@pytest.mark.parametrize("period", [None, np.array([5.0, 0.0, 3.0])])
@pytest.mark.parametrize("k", [7, 60])
def test_neighbours_are_those_of_the_full_distance_matrix(method, period, k):
    points = np.random.default_rng(0).uniform(size=(400, 3)) * 5
    found = nearest_neighbours(points, k, period=period, method=method)
    assert_allclose(found.distances, np.sort(all_distances(points, period), axis=1)[:, : k + 1], atol=ROUNDING)


def test_neighbour_indices_have_the_distances_they_are_listed_with():
    points = np.random.default_rng(1).normal(size=(500, 20))
    found = nearest_neighbours(points, 30)
    exact = all_distances(points)
    assert_allclose(np.take_along_axis(exact, found.indices.astype(int), 1), found.distances, atol=ROUNDING)


def test_two_nn_finds_the_dimension_of_a_rotated_plane():
    generator = np.random.default_rng(2)
    frame = np.linalg.qr(generator.normal(size=(10, 2)))[0]
    found = TwoNN().fit(generator.uniform(size=(4000, 2)) @ frame.T)
    assert abs(found.dimension_ - 2) < 4 * found.dimension_error_ + 0.05  # 0.05: the edges of the square


def test_gride_sees_noise_at_small_and_the_plane_at_large_scale():
    generator = np.random.default_rng(3)
    points = np.hstack([generator.uniform(size=(4000, 2)) * 20, generator.normal(size=(4000, 1)) * 0.2])
    scaling = Gride(256).fit(points).scaling_
    assert scaling.dimensions[0] > 2.4
    assert abs(scaling.dimensions[-1] - 2) < 0.2


def test_k_star_is_the_first_failure_of_the_likelihood_ratio_test():
    points = np.random.default_rng(4).normal(size=(300, 2))
    found = nearest_neighbours(points, 60)
    d = 2.0
    volumes = np.exp(log_unit_ball(d)) * found.distances**d
    expected = []
    for i in range(len(points)):
        j = 4
        while j < 60:
            s = j - 1
            a, b = volumes[i, s], volumes[found.indices[i, j], s]
            if -2 * s * (np.log(a) + np.log(b) - 2 * np.log(a + b) + np.log(4)) > 23.92812697687947:
                break
            j += 1
        expected.append(j - 1)
    assert_array_equal(k_star(found.distances, found.indices, d), expected)


def test_k_star_does_not_depend_on_how_many_neighbours_are_searched():
    points, _, _ = mixture(3000, 2, 5)
    adaptive = KStarNN(dimension=2).fit(points)
    wide = KStarNN(dimension=2, max_neighbours=2000).fit(points)
    assert adaptive.landscape_.neighbourhoods.saturated == 0
    assert_array_equal(adaptive.k_star_, wide.k_star_)


def test_pak_is_a_stationary_point_of_its_likelihood():
    points = np.random.default_rng(6).normal(size=(200, 3))
    found = nearest_neighbours(points, 40)
    k = np.full(200, 25)
    value, _ = pak_log_density(found.lists(), k, 3.0, 200)
    volumes = np.diff(np.exp(log_unit_ball(3.0)) * found.distances[:, :26] ** 3, axis=1)
    rank = np.arange(1, 26)
    free = value + np.log(200)
    # for the F found, the best slope solves sum l = sum l v exp(F + a l); then the sum over shells must be k
    slope = np.zeros(200)
    for _ in range(200):
        terms = volumes * np.exp(free[:, None] + slope[:, None] * rank)
        step = (rank.sum() - (rank * terms).sum(1)) / (rank**2 * terms).sum(1)
        slope += np.clip(step, -0.05, 0.05)
    assert_allclose((volumes * np.exp(free[:, None] + slope[:, None] * rank)).sum(1), 25, rtol=1e-8)


@pytest.mark.parametrize("counts", [None, np.random.default_rng(7).integers(1, 4, 300).astype(float)])
def test_gram_form_equals_covariance_form(counts):
    points = np.random.default_rng(7).normal(size=(300, 5))
    found = nearest_neighbours(points, 30)
    graph = neighbour_graph(found.lists(), k_star(found.distances, found.indices, 5.0))
    packed, gram = (
        edge_differences(points, graph, mean_shifts(points, graph, 5.0, counts=counts, covariance=c), counts=counts)
        for c in (True, False)
    )
    assert_allclose(gram.variance, packed.variance, rtol=1e-8)


def test_common_neighbours_are_set_intersections():
    points = np.random.default_rng(8).normal(size=(300, 2))
    found = nearest_neighbours(points, 40)
    graph = neighbour_graph(found.lists(), np.random.default_rng(0).integers(3, 40, 300))
    links = thin_graph(graph, 9)
    hoods = [set(found.indices[i, : graph.k_star[i]]) for i in range(300)]
    expected = [len(hoods[i] & hoods[j]) for i, j in zip(links.source, links.target, strict=True)]
    assert_array_equal(common_neighbours(graph, links), expected)


def test_multigrid_solves_a_laplacian_with_weights_over_ten_decades():
    from scipy.sparse import coo_matrix, diags

    generator = np.random.default_rng(9)
    n = 3000
    row, column = generator.integers(n, size=(2, 6 * n))
    row, column = np.concatenate([row, np.arange(n - 1)]), np.concatenate([column, np.arange(1, n)])
    weight = 10.0 ** generator.uniform(-5, 5, size=len(row)) * (row != column)
    links = coo_matrix((weight, (row, column)), shape=(n, n)).tocsr()
    links = links + links.T
    matrix = (diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()
    truth = generator.normal(size=n)
    truth -= truth.mean()
    component = np.zeros(n, int)
    found, iterations, _ = conjugate_gradients(
        matrix, matrix @ truth, np.zeros(n), multigrid(matrix, component), 1e-11, 200
    )
    assert iterations < 100
    assert_allclose(found - found.mean(), truth, atol=1e-6)


def test_identity_weights_solve_the_normal_equations():
    points, _, _ = mixture(400, 2, 10, centres=1)
    fitted = BMTI(weights="identity", max_edges=None, sharpen=False, samples=0, max_neighbours=30).fit(points)
    landscape = fitted.landscape_
    hood = landscape.neighbourhoods
    graph = neighbour_graph(hood.neighbours, hood.k_star)
    points = landscape.support.points
    edges = edge_differences(points, graph, mean_shifts(points, graph, hood.dimension))
    design = np.zeros((len(graph.target), 400))
    design[np.arange(len(graph.target)), graph.target] += 1
    design[np.arange(len(graph.target)), graph.source] -= 1
    best = np.linalg.lstsq(design, edges.difference, rcond=None)[0]
    own = landscape.log_density
    assert_allclose(own - own.mean(), best - best.mean(), atol=1e-7)


def test_components_keep_the_mean_of_the_k_star_estimate():
    points, label, _ = mixture(600, 2, 11, centres=3)
    options = {"max_neighbours": 30}
    bmti, prior = BMTI(samples=0, **options).fit(points), KStarNN(**options).fit(points)
    for one in range(3):
        inside = label == one
        assert_allclose(bmti.log_density_[inside].mean(), prior.log_density_[inside].mean(), atol=1e-9)


def test_bmti_finds_the_log_density_of_the_double_well():
    points = np.loadtxt(real_data("density/6d_double_well.txt.gz"))[:4000]
    truth = np.loadtxt(real_data("density/6d_double_well_logdensities_and_grads.txt.gz"))[:4000, 0]

    def error(estimate: np.ndarray) -> float:
        residual = estimate - truth
        return float(np.abs(residual - residual.mean()).mean())

    fitted = BMTI().fit(points)
    residual = fitted.log_density_ - truth
    pull = ((residual - residual.mean()) / fitted.log_density_error_).std()
    assert error(fitted.log_density_) < 0.75 * error(KStarNN().fit(points).log_density_)
    assert 0.8 < pull < 1.3


@pytest.mark.parametrize("density", [KStarNN(), PAk(), BMTI(samples=0)], ids=lambda d: type(d).__name__)
def test_density_peaks_find_separate_normals(density):
    points, label, _ = mixture(1200, 3, 12)
    fitted = DensityPeaks(density=density).fit(points)
    assert fitted.n_clusters_ == 4
    assert adjusted_rand_score(label, fitted.labels_) == 1


@pytest.mark.parametrize(("count", "noise"), [(2000, 0.05), (1000, 0.1)])
def test_neighbourhoods_do_not_join_arcs_that_run_side_by_side(count, noise):
    points, label = make_moons(count, noise=noise, random_state=0)
    assert adjusted_rand_score(label, DensityPeaks().fit(points).labels_) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("name", "truth"), [("Fig1", "F1"), ("Fig2", "F2"), ("FigS2", "FS2")])
def test_figure_sets_have_their_true_number_of_clusters_by_default(name, truth):
    points = np.loadtxt(real_data(f"density/{name}.dat.gz"))
    expected = np.loadtxt(real_data(f"density/gt_{truth}.txt.gz")).astype(int)
    fitted = DensityPeaks().fit(points)
    core = expected >= 0
    assert fitted.n_clusters_ == len(np.unique(expected[core]))
    assert adjusted_rand_score(expected[core], fitted.labels_[core]) > 0.98


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_new_points_at_old_places_have_the_fitted_density_and_label(density):
    points, _, _ = mixture(500, 2, 13)
    fitted = DensityPeaks(density=density).fit(points)
    predicted = fitted.predict_all(points)
    assert_array_equal(predicted["labels"], fitted.labels_)
    assert_array_equal(predicted["log_density"], fitted.log_density_)


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_held_out_points_have_nearly_the_true_density_and_the_true_label(density):
    points, label, truth = mixture(3000, 2, 14)
    fitted = DensityPeaks(density=density).fit(points[:2000])
    predicted = fitted.predict_all(points[2000:])
    residual = predicted["log_density"] - truth[2000:]
    assert np.median(np.abs(residual)) < 0.4  # 1 / sqrt(10) for KNN
    assert adjusted_rand_score(label[2000:], predicted["labels"]) > 0.99


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_copies_of_points_give_finite_densities(density):
    points, _, _ = mixture(300, 2, 15)
    doubled = np.concatenate([points, points, points[:5], points[:5]])
    fitted = DensityPeaks(density=density).fit(doubled)
    assert np.isfinite(fitted.log_density_).all()
    assert np.isfinite(fitted.log_density_error_).all()
    assert_array_equal(fitted.labels_[:300], fitted.labels_[300:600])


def test_a_perfect_crystal_has_one_cluster_per_site():
    sites = np.random.default_rng(16).normal(size=(3, 50))
    noise = 1e-15 * np.random.default_rng(17).normal(size=(600, 50))
    kind = np.random.default_rng(18).integers(3, size=600)
    fitted = DensityPeaks().fit(sites[kind] + noise)
    assert fitted.n_clusters_ == 3
    assert adjusted_rand_score(kind, fitted.labels_) == 1
    assert_allclose(np.exp(fitted.log_density_), np.bincount(kind)[kind] / 600)


def test_points_across_a_period_are_one_cluster():
    generator = np.random.default_rng(19)
    points = np.mod(generator.normal(size=(800, 2)) * 0.4, 10.0)
    assert DensityPeaks(density=PAk(period=10.0)).fit(points).n_clusters_ == 1
    assert DensityPeaks(density=PAk()).fit(points).n_clusters_ > 1


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_density_moves_with_a_rotation(density):
    points, _, _ = mixture(400, 3, 20)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    one, other = clone(density).fit(points), clone(density).fit(points @ turn + 3.0)
    assert_allclose(other.log_density_, one.log_density_, atol=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_density_does_not_depend_on_the_order_of_points(seed):
    points, _, _ = mixture(200, 2, seed)
    order = np.random.default_rng(seed).permutation(200)
    one, other = PAk().fit(points), PAk().fit(points[order])
    assert_allclose(other.log_density_, one.log_density_[order], atol=1e-9)


def test_distinct_points_joins_what_is_closer_than_the_resolution():
    points = np.array([[0.0, 0.0], [5.0, 1.0], [1e-7, 0.0], [5.0, 1.0], [9.9999999, 3.0], [0.0, 3.0]])
    found = distinct_points(points, 1e-6, np.array([10.0, 0.0]))
    assert_array_equal(found.counts[found.inverse], [2, 2, 2, 2, 2, 2])
    assert len(found.points) == 3


@pytest.mark.parametrize("estimator", [*DENSITIES, DensityPeaks(density=PAk()), TwoNN(), Gride()])
def test_estimators_clone_and_pickle(estimator):
    points, _, _ = mixture(300, 2, 21)
    fitted = clone(estimator).fit(points)
    again = pickle.loads(pickle.dumps(fitted))
    if hasattr(fitted, "score_samples"):
        assert_array_equal(again.score_samples(points[:9] + 0.1), fitted.score_samples(points[:9] + 0.1))
    else:
        assert again.dimension_ == fitted.dimension_


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (KNN(k=0), "The 'k' parameter of KNN must be"),
        (BMTI(alpha=2.0), "The 'alpha' parameter of BMTI must be"),
        (BMTI(weights="none"), "The 'weights' parameter of BMTI must be"),
        (PAk(engine="other"), "The 'engine' parameter of PAk must be"),
        (DensityPeaks(z=-1.0), "The 'z' parameter of DensityPeaks must be"),
        (DensityPeaks(z="high"), "The 'z' parameter of DensityPeaks must be"),
        (KStarNN(period=[1.0, 2.0, 3.0]), "The 'period' parameter of KStarNN must be"),
    ],
)
def test_wrong_parameters_are_named(estimator, words):
    with pytest.raises(ValueError, match=words):
        estimator.fit(mixture(100, 2, 22)[0])


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_points_whose_distances_have_no_squares_are_refused(unit):
    points = np.random.default_rng(0).uniform(-1, 1, size=(50, 2))
    with pytest.raises(ValueError, match="another unit"):
        DensityPeaks().fit(unit * points)


def test_many_coordinates_need_no_square_matrices():
    points = np.random.default_rng(23).normal(size=(300, 1000))
    found = survey(points, max_neighbours=30)
    hood = found.neighbourhoods
    graph = neighbour_graph(hood.neighbours, hood.k_star)
    edges = edge_differences(found.support.points, graph, mean_shifts(found.support.points, graph, hood.dimension))
    assert (edges.variance > 0).all()


def test_importing_the_subpackage_loads_nothing_heavy():
    code = "import sys, asenequip.cluster; print(any(m in sys.modules for m in ('torch', 'sklearn', 'scipy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow  # PyNNDescent compiles for a minute
def test_approximate_neighbours_measure_their_recall():
    pytest.importorskip("pynndescent", reason="PyNNDescent is not installed: pip install pynndescent")
    points = np.random.default_rng(24).normal(size=(2000, 16))
    found = nearest_neighbours(points, 20, method="approximate")
    exact = nearest_neighbours(points, 20, method="brute")
    true = np.mean([len(set(a) & set(b)) / 21 for a, b in zip(found.indices, exact.indices, strict=True)])
    assert abs(found.recall - true) < 0.02
