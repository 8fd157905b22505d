"""What is known of the memory, and structures that are refused before they exhaust it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from asenequip.memory import StructureTooLargeError, available_bytes, require_bytes
from asenequip.neighbors import expected_edges, find_edges


def write_system(root, meminfo: str | None = None, **group: str) -> None:
    if meminfo is not None:
        (root / "proc").mkdir()
        (root / "proc/meminfo").write_text(meminfo)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in group.items():
        (root / "sys/fs/cgroup" / name.replace("_", ".", 1)).write_text(text)


def test_the_least_of_system_and_group_counts(tmp_path):
    meminfo = "MemTotal: 16000 kB\nMemFree: 100 kB\nMemAvailable:    8000 kB\n"
    write_system(tmp_path, meminfo, memory_max="5000000\n", memory_current="1000000\n")
    assert available_bytes(tmp_path) == 4_000_000
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == 8000 * 1024


@pytest.mark.parametrize(
    ("membership", "folder", "names"),
    [
        ("0::/job/step\n", "job/step", ("memory.max", "memory.current", "inactive_file")),
        (
            "3:cpu:/other\n4:hugetlb,memory:/job/step\n0::/\n",
            "memory/job/step",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_groups_of_a_job_count_without_the_files_it_has_read(membership, folder, names, tmp_path):
    limit, usage, cache = names
    own = tmp_path / "sys/fs/cgroup" / folder
    own.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    (own / limit).write_text("9000000\n")
    (own / usage).write_text("8000000\n")
    assert available_bytes(tmp_path) == 1_000_000
    (own / "memory.stat").write_text(f"anon 5000000\n{cache} 3000000\n")
    assert available_bytes(tmp_path) == 4_000_000
    (own.parent / limit).write_text("2500000\n")  # the group that this one is in allows less
    (own.parent / usage).write_text("0\n")
    assert available_bytes(tmp_path) == 2_500_000


def test_a_system_that_does_not_tell_refuses_nothing(tmp_path):
    assert available_bytes(tmp_path) is None
    require_bytes(1e30, None, 10)


def test_the_largest_size_is_told():
    with pytest.raises(StructureTooLargeError, match=r"1000 atoms need about 4 GB .* 1 GB are free: .* 250 atoms fit"):
        require_bytes(4e9, 10**9, 1000)


@pytest.mark.parametrize("vacuum", [0.0, 60.0])
@pytest.mark.parametrize("cutoff", [4.0, 6.0])
def test_the_estimate_is_near_the_count(cutoff, vacuum):
    """Within a factor of two, also where most of the cell is empty; the surface of the slab has fewer."""
    atoms = bulk("Cu", cubic=True) * (8, 8, 8)
    atoms.rattle(0.1, seed=0)
    if vacuum:
        atoms.center(vacuum=vacuum, axis=2)
    found = len(find_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)[0])
    estimate = expected_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    assert 0.5 * found < estimate < 2.0 * found


def test_a_large_structure_is_refused_before_its_list_is_built(monkeypatch):
    monkeypatch.setattr("asenequip.neighbors.available_bytes", lambda: 10**8)
    atoms = bulk("Cu", cubic=True) * (24, 24, 24)
    with pytest.raises(StructureTooLargeError, match="55296 atoms need about"):
        find_edges(atoms.positions, atoms.cell.array, atoms.pbc, 6.0)
    small = atoms[:40_000]
    assert len(find_edges(small.positions, np.zeros((3, 3)), np.zeros(3, bool), 2.7)[0]) > 0
