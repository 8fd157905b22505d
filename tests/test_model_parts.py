"""Angular, radial, MLP and pair parts against e3nn and the formulas of the literature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from e3nn import o3
from small_systems import small_model, small_spec

from asenequip.model.angular import spherical_harmonics
from asenequip.model.mlp import MLP, NONLINEARITY
from asenequip.model.pair import pair_potential
from asenequip.model.radial import BesselEmbedding, SplineEmbedding, envelope
from asenequip.model.spec import AllegroSpec, PairSpec

ROUNDING = 1e-13


def random_unit(count: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- angular ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l_max", range(5))
def test_harmonics_are_those_of_e3nn(l_max: int) -> None:
    poles = torch.eye(3, dtype=torch.float64)
    unit = torch.cat([random_unit(200, l_max), poles, -poles])
    expected = o3.spherical_harmonics(list(range(l_max + 1)), unit, normalize=False, normalization="component")
    assert (spherical_harmonics(unit, l_max) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("l_max", range(5))
def test_harmonics_turn_with_the_wigner_matrices(l_max: int) -> None:
    unit = random_unit(20, 3)
    rotation = o3.angles_to_matrix(*(torch.tensor(a, dtype=torch.float64) for a in (0.3, 1.1, -2.0)))
    for sign in (1.0, -1.0):
        irreps = o3.Irreps.spherical_harmonics(l_max, p=-1)
        turned = spherical_harmonics(sign * unit @ rotation.T, l_max)
        wigner = irreps.D_from_matrix(sign * rotation).to(torch.float64)
        assert (turned - spherical_harmonics(unit, l_max) @ wigner.T).abs().max() < 1e-5  # e3nn builds D in float32


@pytest.mark.parametrize("l", range(5))
def test_harmonics_of_one_order_have_norm_two_l_plus_one(l: int) -> None:
    block = spherical_harmonics(random_unit(50, 4), 4)[:, l * l : (l + 1) ** 2]
    assert (block.square().sum(1) - (2 * l + 1)).abs().max() < 1e-12


# -- radial -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [2, 3, 6, 8])
def test_envelope_is_the_polynomial_of_the_paper(p: int) -> None:
    x = torch.linspace(0, 1.5, 301, dtype=torch.float64)
    paper = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    expected = torch.where(x < 1, paper, torch.zeros_like(x))
    assert (envelope(x, p) - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("p", [3, 6])
def test_envelope_has_two_continuous_derivatives_at_the_cutoff(p: int) -> None:
    x = torch.tensor([1 - 1e-6], dtype=torch.float64, requires_grad=True)
    value = envelope(x, p)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    third = p * (p + 1) * (p + 2)  # size of the third derivative, which jumps
    assert value.abs() < third * 1e-18
    assert first.abs() < third * 1e-12
    assert second.abs() < 1.1 * third * 1e-6


def test_envelope_does_not_cancel_near_the_cutoff() -> None:
    # f = p(p+1)(p+2)/6 (1-x)^3 to leading order: the float32 value keeps its digits there
    x = torch.tensor([1 - 2.0**-14], dtype=torch.float32)
    expected = 6 * 7 * 8 / 6 * (2.0**-14) ** 3
    assert envelope(x, 6).item() == pytest.approx(expected, rel=1e-3)


def test_bessel_embedding_is_the_formula() -> None:
    spec = small_spec(num_bessels=5, radial_dim=6)
    embedding = BesselEmbedding(spec, generator())
    x = torch.tensor([0.1, 0.35, 0.99], dtype=torch.float64)
    t_c, t_n = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    weights = embedding.basis.weights[0].detach().numpy()
    found = embedding(x, t_c, t_n).detach().numpy()
    for z in range(3):
        b = [math.sin(m * math.pi * x[z]) / (math.pi * x[z]) for m in range(1, 6)]
        f = 1 - 28 * x[z] ** 6 + 48 * x[z] ** 7 - 21 * x[z] ** 8
        basis = (np.array(b) * float(f)) @ weights / math.sqrt(5)
        types = np.concatenate([embedding.center[t_c[z]].detach(), embedding.neighbor[t_n[z]].detach()])
        assert np.abs(found[z] - types * basis).max() < ROUNDING * 10


def test_spline_embedding_is_the_formula() -> None:
    spec = small_spec(radial="spline", num_splines=7, spline_span=4, radial_dim=5)
    embedding = SplineEmbedding(spec, generator())
    coefficients = embedding.coefficients.detach().numpy()
    for x in (0.02, 0.4, 0.93, 1.0):
        for t_c in (0, 1):
            for t_n in (0, 1):
                expected = np.zeros(5)
                for g in range(7):
                    low, width = (g - 4) / 7, 5 / 7
                    s = min(max(x, low), low + width) - low
                    expected += coefficients[2 * t_c + t_n, :, g] * (0.5 * (1 - math.cos(2 * math.pi * s / width))) ** 2
                types = torch.tensor([t_c]), torch.tensor([t_n])
                found = embedding(torch.tensor([x], dtype=torch.float64), *types).detach().numpy()
                assert np.abs(found - expected).max() < ROUNDING * 10


def test_both_embeddings_vanish_at_the_cutoff() -> None:
    one, types = torch.ones(1, dtype=torch.float64), (torch.tensor([0]), torch.tensor([1]))
    for radial in ("bessel", "spline"):
        spec = small_spec(radial=radial)
        embedding = (BesselEmbedding if radial == "bessel" else SplineEmbedding)(spec, generator())
        assert embedding(one, *types).abs().max() < 1e-15


# -- MLP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NONLINEARITY))
@pytest.mark.parametrize("forward", [True, False])
def test_mlp_is_products_with_gains(name: str, forward: bool) -> None:
    network = MLP([3, 5, 4, 2], name, forward, generator())
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator(1))
    y, gain = x, (1.0 if name == "none" else math.sqrt(2.0))
    for k, weight in enumerate(network.weights):
        first = k == 0 if forward else k == 2
        fan = weight.shape[0] if forward else weight.shape[1]
        y = (y if k == 0 else NONLINEARITY[name](y)) @ weight * ((1.0 if first else gain) / math.sqrt(fan))
    assert (network(x) - y).abs().max() < ROUNDING * 10


def test_blocks_count_as_their_concatenation() -> None:
    network = MLP([9, 5, 2], "silu", True, generator())
    blocks = [torch.randn(4, k, dtype=torch.float64, generator=generator(k)) for k in (2, 4, 3)]
    assert (network(*blocks) - network(torch.cat(blocks, dim=1))).abs().max() < ROUNDING


def test_start_weights_are_uniform_of_unit_variance() -> None:
    weights = MLP([200, 300], "silu", True, generator()).weights[0].detach()
    assert weights.abs().max() <= math.sqrt(3)
    assert weights.abs().max() > 0.999 * math.sqrt(3)
    assert weights.var() == pytest.approx(1.0, abs=0.02)


def test_a_deep_random_network_keeps_the_size_of_its_signal() -> None:
    x = torch.randn(2000, 128, dtype=torch.float64, generator=generator(9))
    out = MLP([128] * 6, "silu", True, generator(3))(x)
    assert 0.3 < out.std() < 3.0


@pytest.mark.parametrize("name", sorted(set(NONLINEARITY) - {"none"}))
def test_nonlinearities_are_what_their_names_say(name: str) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    formula = {
        "silu": x / (1 + torch.exp(-x)),
        "mish": x * torch.tanh(torch.log(1 + torch.exp(x))),
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "ssp": torch.log(0.5 * torch.exp(x) + 0.5),
        "tanh": (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
        "sigmoid": 1 / (1 + torch.exp(-x)),
        "softplus": torch.log(1 + torch.exp(x)),
    }[name]
    assert (NONLINEARITY[name](x) - formula).abs().max() < 1e-12


# -- pair potentials --------------------------------------------------------------------------------------------------


def pair_energies(pair: PairSpec, distances: np.ndarray, types: tuple[int, int] = (0, 1)) -> np.ndarray:
    spec = small_spec(pair=pair)
    d = torch.from_numpy(distances)
    t_c, t_n = (torch.full((len(distances),), t) for t in types)
    return pair_potential(spec)(d, d / spec.cutoff, t_c, t_n).detach().numpy()


def test_zbl_is_the_universal_potential() -> None:
    d = np.array([0.05, 0.3, 1.0, 2.4])
    z1, z2, cutoff = atomic_numbers["Cu"], atomic_numbers["O"], 3.4
    a = 0.46850 / (z1**0.23 + z2**0.23)  # 0.8854 Bohr radii; Ziegler, Biersack, Littmark (1985), eq. 2-61
    psi = sum(
        c * np.exp(-k * d / a)
        for c, k in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
    )
    x = d / cutoff
    f = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    expected = 14.399645 * z1 * z2 / d * psi * f
    both = pair_energies(PairSpec("zbl"), d, (0, 1)) + pair_energies(PairSpec("zbl"), d, (1, 0))
    assert np.allclose(both, expected, rtol=1e-12)


def test_lennard_jones_is_twelve_six() -> None:
    d, x = np.array([1.7, 2.0, 2.3, 3.0]), np.array([1.7, 2.0, 2.3, 3.0]) / 3.4
    expected = 4 * 0.2 * ((2 / d) ** 12 - (2 / d) ** 6) * (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)
    found = 2 * pair_energies(PairSpec("lj", sigma=2.0, epsilon=0.2), d)
    assert np.allclose(found, expected, rtol=1e-13)


def test_lennard_jones_tables_count_by_their_upper_half() -> None:
    spec = small_spec(pair=PairSpec("lj", sigma=2.0, epsilon=0.2))
    potential = pair_potential(spec)
    with torch.no_grad():
        potential.epsilon[0, 1], potential.epsilon[1, 0] = 0.7, 99.0
    d = torch.tensor([2.1], dtype=torch.float64)
    there, back = (potential(d, d / 3.4, torch.tensor([a]), torch.tensor([b])) for a, b in ((0, 1), (1, 0)))
    assert there.equal(back)
    expected = 0.7 / 0.2 * pair_energies(PairSpec("lj", sigma=2.0, epsilon=0.2), np.array([2.1]))
    assert there.item() == pytest.approx(expected[0], rel=1e-13)


# -- precision and the hyperparameters --------------------------------------------------------------------------------


def test_energy_tables_stay_float64_when_the_network_becomes_float32() -> None:
    model = small_model().to(torch.float32)
    assert model.dtype == torch.float32
    assert {model.scales.dtype, model.shifts.dtype} == {torch.float64}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cutoff", -1),
        ("cutoff", float("nan")),
        ("cutoff", float("inf")),
        ("cutoff", True),
        ("l_max", 5),
        ("l_max", 2.0),
        ("num_layers", 0),
        ("radial", "chebyshev"),
        ("radial_dim", 7),
        ("pair_cutoffs", ((3.4, 3.5), (3.4, 3.4))),
        ("pair_cutoffs", ((3.4,), (3.4,))),
        ("avg_num_neighbors", (1.0,)),
        ("avg_num_neighbors", (1.0, 0.0)),
        ("type_names", ("Cu", "Cu")),
        ("type_names", ("Cu", "Xx")),
        ("type_names", ()),
        ("spline_span", 17),
        ("latent_nonlinearity", "swish"),
        ("pair", "zbl"),
    ],
)
def test_a_wrong_hyperparameter_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of AllegroSpec must be .* instead"):
        small_spec(**{name: value})


def test_a_spec_survives_json() -> None:
    import json

    spec = small_spec(pair=PairSpec("lj", trainable=("sigma",)), pair_cutoffs=((3.0, 2.0), (1.0, 3.4)))
    assert AllegroSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_an_unknown_hyperparameter_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="Did you mean 'cutoff'"):
        AllegroSpec.from_dict({"type_names": ["Cu"], "cutof": 3.0})


def test_the_seed_decides_the_start_weights() -> None:
    first, again, other = small_model(seed=1), small_model(seed=1), small_model(seed=2)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(a.equal(b) for a, b in pairs)
    assert not first.readout.weights[0].equal(other.readout.weights[0])
