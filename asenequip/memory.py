"""How much memory is free, and the refusal of structures that would not fit into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Limit, usage, and the usage that is only file cache, by where the control groups of version 2 and 1 are mounted."""

_PHRASES = ("can't allocate memory", "out of memory", "bad_alloc")
"""Marks of a lack of memory in a RuntimeError: of torch's allocator on a CPU, of CUDA, and of C++."""


class StructureTooLargeError(MemoryError):
    """A structure that does not fit into the memory."""


def available_bytes(root: str | Path = "/") -> int | None:
    """Memory, bytes, that this process can still take: the least that the system and its control groups tell.

    A control group (of a container, or of a job of a scheduler) counts files that were read lately as memory in use.
    The system drops the inactive ones when memory is asked for, so they count as free here.

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
    for folder, (limit, usage, cache) in _control_groups(root):
        try:
            free = int((folder / limit).read_text()) - int((folder / usage).read_text())
        except (OSError, ValueError):  # "max" means no limit
            continue
        found.append(free + _counter(folder / "memory.stat", cache))
    return max(0, min(found)) if found else None


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the control groups that hold this process, outwards from its own, with the names of their files."""
    own = dict.fromkeys(_GROUP_FILES, "")
    try:
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for mount in set(controllers.split(",")) & set(own):
                own[mount] = path.strip("/")
    except (OSError, ValueError):
        pass  # the outermost group is looked at in any case
    for mount, names in _GROUP_FILES.items():
        top = root / "sys/fs/cgroup" / mount
        folder = top / own[mount]
        yield from ((group, names) for group in (folder, *folder.parents) if group.is_relative_to(top))


def _counter(path: Path, name: str) -> int:
    """A counter of a file of lines "name value"; 0 where it is not there."""
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0


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
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)


def in_parts_that_fit(
    run: Callable[[Sequence[Item]], Sequence[Result]], structures: Sequence[Item]
) -> list[Result | StructureTooLargeError]:
    """What structures give together or, where memory does not suffice for that, in halves, and these in halves again.

    Parameters
    ----------
    run : callable
        Gives one result for each structure.
    structures : sequence

    Returns
    -------
    list
        For each structure its result, or the error where memory does not suffice for it alone.
    """
    try:
        return list(run(structures))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
    # only here is the error gone, and with it what the failed attempt had allocated
    if len(structures) == 1:
        remedy = "Take a smaller structure or max_edges, or free memory that something else holds."
        return [StructureTooLargeError(f"Memory did not suffice for one structure alone: {reason}\n{remedy}")]
    middle = len(structures) // 2
    return in_parts_that_fit(run, structures[:middle]) + in_parts_that_fit(run, structures[middle:])
