"""Information imbalance against its definition and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from asenequip.cluster import differentiable_imbalance, greedy_selection, information_imbalance, select_features


def by_definition(a: np.ndarray, b: np.ndarray, k: int) -> float:
    n = len(a)
    far_a = np.sqrt(((a[:, None] - a[None]) ** 2).sum(-1))
    far_b = np.sqrt(((b[:, None] - b[None]) ** 2).sum(-1))
    total = 0.0
    for i in range(n):
        order_a = [j for j in np.argsort(far_a[i]) if j != i]
        order_b = [j for j in np.argsort(far_b[i]) if j != i]
        total += np.mean([order_b.index(j) + 1 for j in order_a[:k]])
    return 2 / n * total / n


@pytest.mark.parametrize("k", [1, 5])
def test_imbalance_is_the_mean_rank(k):
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(60, 3)), generator.normal(size=(60, 2))
    found = information_imbalance(a, b, k=k)
    assert_allclose(found, (by_definition(a, b, k), by_definition(b, a, k)), rtol=1e-12)


def test_unrelated_spaces_have_imbalance_one_and_a_subspace_is_lopsided():
    generator = np.random.default_rng(1)
    a = generator.normal(size=(1000, 2))
    assert_allclose(information_imbalance(a, generator.normal(size=(1000, 2))), 1, atol=0.1)
    forward, back = information_imbalance(a, a[:, :1])
    assert forward < 0.1 < back


def test_gradient_of_the_differentiable_form_is_its_finite_difference():
    generator = np.random.default_rng(2)
    x, target, weights = generator.normal(size=(40, 4)), generator.normal(size=(40, 2)), generator.uniform(0.5, 1.5, 4)
    _, gradient = differentiable_imbalance(x, target, weights, scale=0.3)
    step = 1e-6
    for f in range(4):
        change = np.eye(4)[f] * step
        up, down = (differentiable_imbalance(x, target, weights + s * change, scale=0.3)[0] for s in (1, -1))
        assert_allclose(gradient[f], (up - down) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("choose", [lambda x, y: greedy_selection(x, y, n_features=2), select_features])
def test_selection_finds_the_two_features_that_matter(choose):
    generator = np.random.default_rng(3)
    x = generator.normal(size=(200, 5))
    target = x[:, [3, 1]] * [1.0, 0.8]
    assert set(choose(x, target).features[:2]) == {1, 3}
