"""The collapsed track on compiled kernels against the textbook track, which forms a tensor per edge."""

from __future__ import annotations

import math

import kernel_cases as cases
import pytest
import torch
from e3nn import o3
from torch import Tensor

from asenequip.kernels import native, ops
from asenequip.kernels.paths import component_irrep, harmonics_irreps, layer_paths
from asenequip.kernels.plain import ChainTable

TOLERANCE = 1e-11
"""Relative to the largest entry: float64 rounding through up to three layers, twice differentiated."""
STEP = 1e-4
"""Displacement of the finite differences (in units of the cutoff)."""

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")


def textbook(layers, path_weights, embedding, env_weights, harmonics, centers, atoms) -> list[Tensor]:
    """The scalars of every layer, with V_k (z, i, u) formed on each edge."""
    irrep = torch.tensor(component_irrep(layers[0].irreps_env))
    features = embedding[:, irrep] * harmonics.unsqueeze(-1)
    scalars = []
    for layer, weights, own in zip(layers, path_weights, env_weights, strict=True):
        terms = own[:, irrep] * harmonics.unsqueeze(-1)
        environment = torch.zeros(atoms, *terms.shape[1:], dtype=terms.dtype).index_add(0, centers, terms)
        mixing = weights.expand(-1, features.shape[2])
        couplings = cases.dense_couplings(layer)
        features = torch.einsum("pijm,pu,ziu,zju->zmu", couplings, mixing, features, environment[centers])
        scalars.append(features[:, 0])
    return scalars


def collapsed(layers, path_weights, embedding, env_weights, harmonics, ptr, centers) -> list[Tensor]:
    """The same through the three operations, at the centres."""
    irrep = torch.tensor(component_irrep(layers[0].irreps_env))
    environments, scalars = [], []
    for k, layer in enumerate(layers):
        environments.append(ops.env_sum(env_weights[k], harmonics, irrep, ptr, centers))
        dims = sum(2 * l + 1 for l, _ in layer.irreps_out)
        # e_0e: one in the scalar component of every channel.
        vector = torch.zeros(ptr.shape[0] - 1, dims, embedding.shape[2], dtype=harmonics.dtype)
        vector[:, 0] = 1
        for back in range(k, -1, -1):
            vector = ops.chain(path_weights[back], environments[back], vector, ChainTable(layers[back]))
        scalars.append(ops.edge_dot(embedding, harmonics, vector, irrep, ptr, centers))
    return scalars


def _matrix() -> list[object]:
    rows = []
    for l_max in range(5):
        for number in (1, 2, 3):
            for parity in (False, True):
                for coupled in (True, False):
                    fast = l_max <= 2 and number == 2 and not parity and (coupled or l_max == 1)
                    label = (
                        f"l{l_max}-L{number}-{'parity' if parity else 'plain'}-{'coupled' if coupled else 'uncoupled'}"
                    )
                    marks = [] if fast else [pytest.mark.slow]
                    rows.append(pytest.param(l_max, number, parity, coupled, marks=marks, id=label))
    return rows


@pytest.mark.parametrize(
    "channels", [1, *(pytest.param(c, marks=pytest.mark.slow) for c in (3, 16, 32, 48, 64, 100, 128))]
)
@pytest.mark.parametrize(("l_max", "number", "parity", "coupled"), _matrix())
def test_scalars_and_two_derivatives_equal_the_textbook(l_max, number, parity, coupled, channels):
    layers = layer_paths(l_max, number, parity)
    x = cases.operands(l_max, channels, seed=11, counts=(0, 3, 1, 2, 0))
    generator = torch.Generator().manual_seed(12)
    shapes = [(len(layer.paths), channels if coupled else 1) for layer in layers]
    paths = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    own = [torch.randn(x.weights.shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in layers]
    inputs = (x.weights, x.harmonics, *own, *paths)
    with ops.use_backend("native"):
        found = collapsed(layers, paths, x.weights, own, x.harmonics, x.ptr, x.centers)
        found = cases.derivatives(torch.stack(found), inputs, 2)
    expected = textbook(layers, paths, x.weights, own, x.harmonics, x.centers, 5)
    expected = cases.derivatives(torch.stack(expected), inputs, 2)
    assert cases.largest_error(found, expected) < TOLERANCE


def _cluster_energy(positions: Tensor, l_max: int, channels: int) -> Tensor:
    """An energy of a small cluster through the kernels: radial weights, e3nn's harmonics, two layers."""
    atoms = positions.shape[0]
    centers, neighbors = torch.nonzero(~torch.eye(atoms, dtype=torch.bool), as_tuple=True)
    ptr = torch.arange(atoms + 1) * (atoms - 1)
    vectors = positions[neighbors] - positions[centers]
    distance = vectors.norm(dim=1)
    harmonics = o3.spherical_harmonics(list(range(l_max + 1)), vectors, True, normalization="component")
    size = (distance.shape[0], l_max + 1, channels)
    frequencies = torch.linspace(0.5, 2.0, size[1] * channels, dtype=torch.float64)
    weights = torch.sin(distance[:, None] * frequencies).reshape(size)
    layers = layer_paths(l_max, 2, False)
    generator = torch.Generator().manual_seed(1)
    paths = [torch.randn(len(l.paths), channels, generator=generator, dtype=torch.float64) for l in layers]
    scalars = collapsed(layers, paths, weights, [weights.cos(), weights**2], harmonics, ptr, centers)
    return torch.stack(scalars).tanh().sum()


def _positions() -> Tensor:
    generator = torch.Generator().manual_seed(21)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64) * 1.5


def test_forces_are_the_gradient_of_the_energy_by_finite_differences():
    positions = _positions().requires_grad_()
    with ops.use_backend("native"):
        (gradient,) = torch.autograd.grad(_cluster_energy(positions, 2, 4), positions)
        numerical = torch.zeros_like(gradient)
        for k in range(positions.numel()):
            shift = torch.zeros(positions.numel(), dtype=torch.float64)
            shift[k] = STEP
            moved = [_cluster_energy(positions.detach() + s * shift.reshape(-1, 3), 2, 4) for s in (-2, -1, 1, 2)]
            numerical.view(-1)[k] = (moved[0] - 8 * moved[1] + 8 * moved[2] - moved[3]) / (12 * STEP)
    # The five-point formula leaves STEP^4 times the fifth derivative, and rounding over STEP.
    torch.testing.assert_close(gradient, numerical, rtol=1e-7, atol=1e-8 * float(gradient.abs().max()))


def test_hessian_of_the_energy_is_symmetric():
    positions = _positions().requires_grad_()
    with ops.use_backend("native"):
        energy = _cluster_energy(positions, 2, 4)
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
        rows = [torch.autograd.grad(g, positions, retain_graph=True)[0].flatten() for g in gradient.flatten()]
    hessian = torch.stack(rows)
    assert float(hessian.abs().max()) > 1e-3
    assert float((hessian - hessian.T).abs().max()) < TOLERANCE * float(hessian.abs().max())


def test_scalars_are_invariant_under_rotation_and_inversion():
    positions = _positions()
    rotation = o3.angles_to_matrix(*torch.tensor([0.3, 1.1, -0.7], dtype=torch.float64))
    with ops.use_backend("native"):
        energies = [_cluster_energy(positions @ m, 3, 3) for m in (torch.eye(3).double(), rotation.T, -rotation.T)]
    assert math.isclose(energies[0], energies[1], rel_tol=1e-10)
    assert math.isclose(energies[0], energies[2], rel_tol=1e-10)


@pytest.mark.parametrize(
    ("l_max", "number", "parity", "count"),
    [
        (1, 2, False, 10),
        (2, 2, False, 83),
        (3, 2, False, 353),
        (4, 2, False, 1158),
        (1, 3, True, 16),
        (2, 3, True, 137),
        (3, 3, True, 611),
        (4, 3, True, 2052),
    ],
)
def test_inner_layer_has_the_published_number_of_nonzeros(l_max, number, parity, count):
    layer = layer_paths(l_max, number, parity)[number - 2]
    found = int((cases.dense_couplings(layer).abs() > 1e-12).sum())
    assert found == count
    assert len(layer.nonzeros.value) == count


def test_harmonics_irreps_alternate_in_parity():
    assert harmonics_irreps(3) == tuple((ir.l, ir.p) for _, ir in o3.Irreps.spherical_harmonics(3))
