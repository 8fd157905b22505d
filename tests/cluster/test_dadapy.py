"""Agreement with DADApy 0.3.4, where that is installed."""

from __future__ import annotations

import contextlib
import io
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score

from asenequip.cluster import BMTI, DensityPeaks, Gride, KStarNN, PAk, TwoNN
from asenequip.cluster.lists import NeighbourLists
from asenequip.cluster.peaks import density_peaks

pytest.importorskip("dadapy", reason="DADApy is not installed: pip install 'asenequip[dadapy]' (numpy < 2)")
pytestmark = pytest.mark.filterwarnings("ignore")

FIT = 1e-9
"""DADApy's 2NN slope comes from an iterative fit."""
PAK_STOPPING = 0.01
"""DADApy's Newton iterations for PAk stop at a relative gradient of 1e-3."""
PAK_STUCK = 0.5
"""Its steps are capped at a tenth of |F|, F = ln rho + ln N, so that points with F near 0 do not move: left out."""


@pytest.fixture(scope="module", params=[(1000, 2), (2000, 6), (800, 20)], ids=lambda p: f"{p[0]}x{p[1]}")
def peer(request) -> SimpleNamespace:
    from dadapy import Data

    n, d = request.param
    generator = np.random.default_rng(n)
    points = np.eye(d)[generator.integers(2, size=n)] * 8 + generator.normal(size=(n, d))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Data(points, maxk=100, n_jobs=1)
        data.compute_distances()
        dimension = data.compute_id_2NN()[0]
        gride = data.return_id_scaling_gride(64, eps=1e-13)
        data.compute_kstar()
        k_star = data.kstar.copy()
        knn = [a.copy() for a in data.compute_density_kstarNN()]
        pak = [a.copy() for a in data.compute_density_PAk()]
        data.compute_clustering_ADP()
        labels, centres, saddles = data.cluster_assignment.copy(), data.cluster_centers, data.log_den_bord.copy()
        data.compute_clustering_ADP(halo=True)
        halo = data.cluster_assignment < 0
        data.compute_density_BMTI(solver="dense", alpha=0.99)
        bmti = data.log_den.copy()
    return SimpleNamespace(**locals())


def test_two_nn(peer):
    assert_allclose(TwoNN().fit(peer.points).dimension_, peer.dimension, rtol=FIT)


def test_gride(peer):
    found = Gride(64).fit(peer.points).scaling_
    assert_allclose(found.dimensions, peer.gride[0], rtol=1e-10)
    assert_allclose(found.errors, peer.gride[1], rtol=1e-10)


def test_k_star_and_its_density(peer):
    found = KStarNN(max_neighbours=100, dimension=peer.dimension).fit(peer.points)
    assert_array_equal(found.k_star_, peer.k_star)
    assert_allclose(found.log_density_, peer.knn[0], atol=1e-10)
    assert_allclose(found.log_density_error_, peer.knn[1], atol=1e-10)


def test_pak(peer):
    found = PAk(max_neighbours=100, dimension=peer.dimension).fit(peer.points)
    moves = np.abs(found.log_density_ + np.log(len(peer.points))) > PAK_STUCK
    assert_allclose(found.log_density_[moves], peer.pak[0][moves], atol=PAK_STOPPING)
    assert_allclose(found.log_density_error_, peer.pak[1], rtol=1e-12)


@pytest.fixture(scope="module")
def bmti(peer) -> BMTI:
    options = {"sharpen": False, "max_edges": None, "max_neighbours": 100, "samples": 0}
    return BMTI(alpha=0.99, dimension=peer.dimension, **options).fit(peer.points)


def test_gradients(peer, bmti):
    assert_allclose(bmti.gradient_, peer.data.grads, atol=1e-10 * np.abs(peer.data.grads).max())


def test_bmti(peer, bmti):
    assert_allclose(bmti.log_density_, peer.bmti, atol=1e-5)


def test_density_peaks_of_the_same_density(peer):
    lists = NeighbourLists.equal(peer.data.distances, peer.data.dist_indices)
    found = density_peaks(*peer.pak, lists, peer.k_star, 1.65)
    assert sorted(found.centres) == sorted(peer.centres)
    assert adjusted_rand_score(found.labels, peer.labels) == 1
    assert_array_equal(found.halo, peer.halo)


def test_density_peaks_end_to_end(peer):
    found = DensityPeaks(density=PAk(max_neighbours=100, dimension=peer.dimension)).fit(peer.points)
    assert adjusted_rand_score(found.labels_, peer.labels) == 1


@pytest.mark.parametrize("density", [KStarNN, PAk, BMTI])
def test_engine_gives_what_dadapy_gives(peer, density):
    found = density(engine="dadapy", max_neighbours=100, dimension=peer.dimension).fit(peer.points)
    own = {"KStarNN": peer.knn[0], "PAk": peer.pak[0]}.get(density.__name__)
    if own is None:
        options = {"sharpen": False, "max_edges": None, "max_neighbours": 100, "dimension": peer.dimension}
        own = BMTI(samples=0, **options).fit(peer.points).log_density_
        assert_allclose(
            found.log_density_ - found.log_density_.mean(), own - own.mean(), atol=0.01
        )  # its solver stops at 1e-5
    else:
        assert_allclose(found.log_density_, own, atol=1e-8)


def test_a_fit_goes_to_dadapy_and_back(peer):
    from asenequip.cluster.reference import from_dadapy, to_dadapy

    fitted = PAk(max_neighbours=100).fit(peer.points)
    data = to_dadapy(fitted)
    assert_array_equal(data.kstar, fitted.k_star_)
    assert_allclose(data.log_den, fitted.log_density_)
    again = from_dadapy(data)
    assert_array_equal(again.k_star_, fitted.k_star_)
    assert_array_equal(again.log_density_, fitted.log_density_)
