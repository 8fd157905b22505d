"""Energies, forces and stress are those of nequip-allegro with the same weights, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peer_cases import LARGEST_FORCE, LIMITS, Case, all_cases, deviations

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def default_dtype() -> Iterator[None]:
    """The reference sets the process-wide default dtype; put it back."""
    pytest.importorskip("allegro", reason="nequip-allegro is not installed here: pip install 'asenequip[convert]'")
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_there_are_enough_configurations_and_each_has_its_name() -> None:
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names) >= 100


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_energy_forces_and_stress_are_the_references(case: Case) -> None:
    off = deviations(case)
    assert 1e-3 < off["largest_force"] <= LARGEST_FORCE
    for quantity, limit in LIMITS.items():
        assert off[quantity] <= limit, quantity
