"""The collapsed model against Allegro with a tensor per edge: energies, forces, stress, gradients of a force loss."""

from __future__ import annotations

import pytest
import torch
from oracle import textbook
from small_systems import small_atoms, small_model

from asenequip.graph import graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, stress
from asenequip.model.spec import NONLINEARITIES, PairSpec

TOLERANCE = 1e-12
"""Relative to the largest entry: rounding of a few hundred float64 operations in another order."""

OPTIONS: dict[str, dict[str, object]] = {
    "defaults": {},
    "l0": {"l_max": 0},
    "l1": {"l_max": 1},
    "l3": {"l_max": 3},
    "l4": {"l_max": 4, "num_layers": 1},
    "one layer": {"num_layers": 1},
    "three layers, parity": {"num_layers": 3, "parity": True},
    "three layers, no parity": {"num_layers": 3, "parity": False},
    "l3, three layers, parity": {"l_max": 3, "num_layers": 3, "parity": True},
    "four layers": {"l_max": 1, "num_layers": 4},
    "uncoupled": {"path_channel_coupling": False, "num_layers": 3},
    "shared irrep weights": {"individual_irrep_weights": False},
    "shared and uncoupled": {"individual_irrep_weights": False, "path_channel_coupling": False, "num_layers": 3},
    "spline": {"radial": "spline"},
    "spline, wide": {"radial": "spline", "num_splines": 9, "spline_span": 3, "radial_dim": 5},
    "trained frequencies": {"bessel_trainable": True, "num_bessels": 5, "envelope_exponent": 3},
    "pair cutoffs": {"pair_cutoffs": ((3.4, 2.6), (3.0, 2.2))},
    "pair cutoffs, spline": {"pair_cutoffs": ((2.9, 3.4), (2.4, 3.1)), "radial": "spline"},
    "gradient normalised": {"forward_normalize": False},
    "gradient normalised, spline": {"forward_normalize": False, "radial": "spline"},
    "linear": {"two_body_depth": 0, "latent_depth": 0, "readout_depth": 0},
    "deep": {"two_body_depth": 2, "latent_depth": 3, "readout_depth": 2},
    "narrow embedding": {"radial_dim": 4},
    "zbl": {"pair": PairSpec("zbl")},
    "lj": {"pair": PairSpec("lj", sigma=1.9, epsilon=0.3, delta=0.1, trainable=("sigma", "epsilon", "delta"))},
    "lj repulsive": {"pair": PairSpec("lj", style="lj_repulsive_only", exponent=5.0, sigma=0.9, trainable=("sigma",))},
    "pure repulsion": {"pair": PairSpec("lj", style="repulsive", exponent=4.0, sigma=0.8, trainable=("epsilon",))},
    "trained scales": {"scales_trainable": True, "shifts_trainable": True},
    **{f"{name} everywhere": dict.fromkeys(
        ("two_body_nonlinearity", "latent_nonlinearity", "readout_nonlinearity"), name
    ) for name in NONLINEARITIES if name != "silu"},
}  # fmt: skip


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def both(model: Allegro, seed: int, create_graph: bool = False):
    atoms = small_atoms(seed)
    graph = graph_of(atoms, model.spec.type_names, torch.tensor(model.spec.cutoff_table()).numpy())
    mine = evaluate_derivatives(model, graph, create_graph=create_graph)
    theirs = textbook.evaluate(dict(model.named_parameters()), model.spec, atoms, create_graph)
    return mine, stress(graph, mine.virials)[0], theirs


@pytest.mark.parametrize("name", OPTIONS)
def test_energies_forces_and_stress_are_those_of_the_textbook(name: str) -> None:
    model = small_model(seed=3, **OPTIONS[name])
    mine, my_stress, theirs = both(model, seed=7)
    assert relative(mine.energies, theirs.energies) < TOLERANCE
    assert relative(mine.forces, theirs.forces) < 10 * TOLERANCE
    assert relative(my_stress, theirs.stress) < 10 * TOLERANCE


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_of_a_force_and_stress_loss_are_those_of_the_textbook(name: str) -> None:
    model = small_model(seed=4, **OPTIONS[name])
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    mine, my_stress, theirs = both(model, seed=8, create_graph=True)
    probe = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradients(energies, forces, tension):
        loss = (forces - probe).square().sum() + tension.square().sum() + energies.square().sum()
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        return dict(zip(parameters, found, strict=True))

    expected = gradients(theirs.energies, theirs.forces, theirs.stress)
    for parameter, gradient in gradients(mine.energies, mine.forces, my_stress).items():
        wanted = expected[parameter]
        assert (gradient is None) == (wanted is None), parameter
        if gradient is not None and wanted.abs().max() > 0:
            assert relative(gradient, wanted) < 20 * TOLERANCE, parameter


def test_the_oracle_counts_the_paths_of_the_literature() -> None:
    # Allegro, Nat. Commun. 14, 579 (2023): with one layer each irrep of the environment meets itself, once
    for l_max in range(5):
        ((irreps_in, irreps_out),) = textbook.layer_irreps(small_model(l_max=l_max, num_layers=1).spec)
        assert len(irreps_in) == l_max + 1
        assert irreps_out == [(0, 1)]
