"""How much memory there is, and what is said where it does not suffice."""

from __future__ import annotations

from pathlib import Path


class StructureTooLargeError(MemoryError):
    """A structure that would not fit into the memory; the message says how large one may be."""


def available_bytes(root: str | Path = "/") -> int | None:
    """Memory, bytes, that this process can still take: the least that the system and its control group tell.

    Parameters
    ----------
    root : path
        Where the system's files are.

    Returns
    -------
    int or None
        None where the system does not tell.
    """
    root = Path(root)
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    group = root / "sys/fs/cgroup"
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        for folder in (group, group / "memory"):
            try:
                found.append(int((folder / limit).read_text()) - int((folder / usage).read_text()))
            except (OSError, ValueError):  # "max" means no limit
                continue
    return max(0, min(found)) if found else None


def require_bytes(needed: float, available: int | None, num_atoms: int) -> None:
    """Refuse a structure before it exhausts the memory.

    Parameters
    ----------
    needed : float
        Bytes that the structure would take, in proportion to its atoms.
    available : int or None
        Bytes; None lets everything pass.
    num_atoms : int

    Raises
    ------
    StructureTooLargeError
    """
    if available is None or needed <= available:
        return
    largest = int(num_atoms * available / needed)
    raise StructureTooLargeError(
        f"The {num_atoms} atoms need about {needed / 1e9:.3g} GB for their neighbours, and {available / 1e9:.3g} GB "
        f"are free: at this density {largest} atoms fit.\nTake a smaller structure or skin, or divide it among "
        "machines with LAMMPS, which the potential allows: it is strictly local."
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, Python's or torch's, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))
