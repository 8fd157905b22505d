"""The network compiled ahead of time, on CPU tensors: against the exact network, and refused where it is not that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import small_atoms, small_model

from asenequip import compiledgraph
from asenequip.artifact import Potential, load_artifact, save_artifact
from asenequip.compiledgraph import CompiledGraph, compiled_graph, kept_graph, trace
from asenequip.compiling import CompilationError
from asenequip.evaluate import Evaluator
from asenequip.graph import atom_types, graph_of
from asenequip.kernels import native
from asenequip.kernels.ops import use_backend
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import Slopes, evaluate_derivatives, slopes_of
from asenequip.model.spec import PairSpec
from asenequip.resident import ResidentEngine
from asenequip.testing.systems import systems

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C++ compiler on this machine")

CPU = torch.device("cpu")
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
"""eV and eV/Angstrom, of forces of a few eV/Angstrom: the rounding of sums in another order."""
REPEATS = ((1, 1, 1), (2, 1, 1), (2, 3, 1))


def make_model(dtype: str = "float64", l_max: int = 2) -> Allegro:
    model = small_model(l_max=l_max, pair=PairSpec("zbl"), pair_cutoffs=((3.4, 3.0), (2.8, 3.2)))
    return model.requires_grad_(False).to(getattr(torch, dtype))


def inputs(model: Allegro, repeat: tuple[int, int, int]) -> compiledgraph.Inputs:
    return compiledgraph._inputs(small_atoms().repeat(repeat), model)


@pytest.fixture(scope="module")
def potential(tmp_path_factory) -> Potential:
    return load_artifact(save_artifact(tmp_path_factory.mktemp("potential") / "m.asnq", make_model()))


# -- tracing ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced() -> tuple[Allegro, torch.fx.GraphModule]:
    model = make_model("float32", l_max=1)
    return model, trace(model, [inputs(model, REPEATS[0]), inputs(model, REPEATS[1])], "float32")


def test_traced_energies_and_gradient_are_the_network_s_at_another_size(traced):
    model, graph = traced
    others = inputs(model, REPEATS[2])
    for found, wanted in zip(graph(*others), slopes_of(model)(*others), strict=True):
        assert torch.equal(found, wanted)  # the same operations in the same order


def test_kernels_stay_in_the_graph_and_scales_of_weights_do_not(traced):
    graph = traced[1].graph
    assert sum(node.target is torch.ops.asenequip.polynomial.default for node in graph.nodes) > 6
    products = [node for node in graph.nodes if node.target is torch.ops.aten.mul.Tensor]
    assert not [node for node in products if all(source.op == "get_attr" for source in node.all_input_nodes)]


def test_a_size_that_was_built_in_is_refused(monkeypatch):
    model = small_model(l_max=0, num_layers=1).requires_grad_(False)

    def sized(model: Allegro) -> Slopes:
        right = slopes_of(model)

        def slopes(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            energies, gradient = right(*tensors)
            return energies + 1e-9 * int(tensors[0].shape[0]), gradient

        return slopes

    monkeypatch.setattr(compiledgraph, "slopes_of", sized)
    with pytest.raises(CompilationError, match="not the same for structures of different sizes"):
        trace(model, [inputs(model, REPEATS[0]), inputs(model, REPEATS[1])], "float64")


# -- the check and the cache, around a stand-in for the compiler ------------------------------------------------------


class StandIn:
    """A package that is a number, which is added to the gradient along one axis."""

    def __init__(self, package: Path, model: Allegro) -> None:
        self.wrong, self.right = float(package.read_text()), slopes_of(model)

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        energies, gradient = self.right(*tensors)
        return energies, gradient + self.wrong * torch.tensor([1.0, 0.0, 0.0]) * (tensors[0][:, :1] > 0)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Sets the number that the next package is; the cache is empty."""
    made = []

    def set_to(value: float) -> list[float]:
        def build(model: Allegro, examples: object, dtype: str, package: Path) -> None:
            package.write_text(str(value))
            made.append(value)

        monkeypatch.setattr(compiledgraph, "_build", build)
        return made

    monkeypatch.setattr(compiledgraph, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(compiledgraph, "CompiledGraph", StandIn)
    return set_to


def test_a_right_package_is_made_once(potential, stand_in):
    made = stand_in(0.0)
    first = compiled_graph(potential, "float64", CPU)[1]
    assert compiled_graph(potential, "float64", CPU)[1] == first
    assert made == [0.0]


def test_other_weights_precision_or_version_are_another_package(potential, stand_in, tmp_path, monkeypatch):
    stand_in(0.0)
    compiled_graph(potential, "float64", CPU)
    other = make_model()
    other.readout.weights[0][0, 0] += 1e-12
    assert kept_graph(potential, "float32", CPU) is None
    assert kept_graph(load_artifact(save_artifact(tmp_path / "other.asnq", other)), "float64", CPU) is None
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert kept_graph(potential, "float64", CPU) is None


@pytest.mark.parametrize("wrong", [1e-4, float("nan")])
def test_a_wrong_package_is_refused_and_not_kept(potential, stand_in, tmp_path, wrong):
    stand_in(wrong)
    with pytest.raises(CompilationError, match="its force_error is over"):
        compiled_graph(potential, "float64", CPU)
    assert not list(tmp_path.rglob("*.pt2"))


def test_what_the_compiler_says_is_passed_on(potential, stand_in, monkeypatch):
    stand_in(0.0)

    def fail(*arguments: object) -> None:
        raise RuntimeError("no Triton\nand much more")

    monkeypatch.setattr(compiledgraph, "_build", fail)
    with pytest.raises(CompilationError, match=r"could not be compiled for .cpu.: no Triton$"):
        compiled_graph(potential, "float64", CPU)


def damage_package(folder: Path) -> None:
    (package,) = folder.rglob("*.pt2")
    package.write_text("1e-13")


def damage_record(folder: Path) -> None:
    (record,) = folder.rglob("*.json")
    record.write_text(record.read_text()[:40])


def lose_package(folder: Path) -> None:
    (package,) = folder.rglob("*.pt2")
    package.unlink()


@pytest.mark.parametrize("damage", [damage_package, damage_record, lose_package])
def test_a_damaged_cache_is_told_and_made_anew(potential, stand_in, tmp_path, damage):
    made = stand_in(0.0)
    compiled_graph(potential, "float64", CPU)
    damage(tmp_path)
    with pytest.warns(UserWarning, match=r"is not used: (.|\n)*asenequip compile MODEL --device cpu --dtype float64"):
        compiled_graph(potential, "float64", CPU)
    assert len(made) == 2
    assert kept_graph(potential, "float64", CPU) is not None


def test_a_kept_package_that_goes_wrong_on_this_machine_is_not_used(potential, stand_in, monkeypatch):
    stand_in(0.0)
    compiled_graph(potential, "float64", CPU)
    monkeypatch.setattr(StandIn, "__call__", lambda self, *t: (self.right(*t)[0], 1.001 * self.right(*t)[1]))
    with pytest.warns(UserWarning, match="its forces on the golden frame are off by"):
        assert kept_graph(potential, "float64", CPU) is None


# -- real packages ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float32", "float64"])
def compiled(request, potential, tmp_path_factory) -> tuple[str, CompiledGraph]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiledgraph, "cache_directory", lambda: tmp_path_factory.mktemp("cache"))
        return request.param, compiled_graph(potential, request.param, CPU)[0]


@pytest.mark.slow
@pytest.mark.parametrize("padded_edges", [0, 10**6])
def test_every_named_system_through_a_package(potential, compiled, padded_edges):
    dtype, graph = compiled
    exact = potential.cast("float64", "cpu")
    engine = ResidentEngine(potential.cast(dtype, "cpu"), 1.0, padded_edges=padded_edges, slopes=graph)
    for name, atoms in systems(("Cu", "O"), cutoff=3.4).items():
        types = atom_types(atoms, exact.spec.type_names)
        energies, forces, virials = engine.run(atoms.positions, atoms.cell.array, atoms.pbc, types)
        with use_backend("plain"):
            cutoffs = np.asarray(exact.spec.cutoff_table())
            wanted = evaluate_derivatives(exact, graph_of(atoms, exact.spec.type_names, cutoffs))
        for found, right in ((energies, wanted.energies), (forces, wanted.forces), (virials, wanted.virials)):
            size = float(right.abs().max()) if right.numel() else 0.0
            assert np.abs(found - right.detach().numpy()).max(initial=0.0) <= TOLERANCE[dtype] * (1.0 + size), name


@pytest.mark.slow
def test_batches_and_blocks_through_a_package(potential, compiled):
    dtype, graph = compiled
    frames = [small_atoms(seed).repeat((1 + seed, 1, 1)) for seed in range(3)]
    evaluator = Evaluator(potential, device="cpu", dtype=dtype, compiled=False, max_edges=150)
    wanted = evaluator.evaluate(frames)
    evaluator.slopes = graph
    for found, right in zip(evaluator.evaluate(frames), wanted, strict=True):
        scale = 1.0 + np.abs(right["forces"]).max()
        assert np.abs(found["forces"] - right["forces"]).max() <= TOLERANCE[dtype] * scale
        assert abs(found["energy"] - right["energy"]) <= TOLERANCE[dtype] * len(right["forces"])


@pytest.mark.slow
def test_inputs_that_are_views_give_the_same_bits(compiled):
    dtype, graph = compiled
    plain = inputs(make_model(dtype), REPEATS[1])
    vectors = plain[0].t().contiguous().t()  # another order in memory
    shifted = torch.cat([plain[1][:1], plain[1]])[1:]  # another alignment
    for found, wanted in zip(graph(vectors, shifted, *plain[2:]), graph(*plain), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_on_a_gpu_through_the_evaluator(potential, dtype, tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setattr(compiledgraph, "cache_directory", lambda: tmp_path)
    frames = [small_atoms().repeat((2, 2, 2)), small_atoms()]
    wanted = Evaluator(potential, device="cpu", dtype="float64", compiled=False).evaluate(frames)
    evaluator = Evaluator(potential, device="cuda", dtype=dtype, compiled=True)
    together = evaluator.evaluate(frames)
    captured = [evaluator.evaluate([atoms])[0] for atoms in frames for _ in range(3)]
    for found, right in zip((*together, *captured), (*wanted, *(w for w in wanted for _ in range(3))), strict=True):
        scale = 1.0 + np.abs(right["forces"]).max()
        assert np.abs(found["forces"] - right["forces"]).max() <= TOLERANCE[dtype] * scale
    assert Evaluator(potential, device="cuda", dtype=dtype).slopes is not None
