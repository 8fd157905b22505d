"""Print how far asenequip is from nequip-allegro over all configurations: ``python tests/peer/run.py [name-part]``."""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings
from collections import defaultdict

from peer_cases import LIMITS, Case, all_cases, deviations


def group(case: Case) -> str:
    """Row of the table a case belongs to."""
    head = case.name.split("-")[0]
    return f"grid, l_max {head[1]}" if head[:1] == "l" and head[1:].isdigit() else "one option at a time"


def main() -> int:
    warnings.filterwarnings("ignore")
    chosen = [case for case in all_cases() if not sys.argv[1:] or sys.argv[1] in case.name]
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    worst: dict[str, tuple[float, str]] = dict.fromkeys(LIMITS, (-1.0, ""))
    start = time.perf_counter()
    for case in chosen:
        off = deviations(case)
        for name in (group(case), "all"):
            rows[name].append(off)
        for quantity in LIMITS:
            worst[quantity] = max(worst[quantity], (off[quantity], case.name))
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("nequip", "nequip-allegro", "torch"))
    print(f"asenequip against {versions}; float64, the same weights; {time.perf_counter() - start:.0f} s")
    print(f"{'':24s}{'models':>7s}{'|dE| eV/atom':>15s}{'|dF| eV/A':>12s}{'|dstress| eV/A^3':>18s}{'max |F|':>10s}")
    for name, offs in sorted(rows.items(), key=lambda item: item[0] == "all"):
        energy, forces, stress, force = (max(o[q] for o in offs) for q in (*LIMITS, "largest_force"))
        print(f"{name:24s}{len(offs):7d}{energy:15.1e}{forces:12.1e}{stress:18.1e}{force:10.1f}")
    print(f"{'limit':31s}" + "".join(f"{limit:{w}.0e}" for limit, w in zip(LIMITS.values(), (15, 12, 18), strict=True)))
    for quantity, (value, name) in worst.items():
        print(f"largest {quantity}: {value:.1e} at {name}")
    return int(any(value > LIMITS[quantity] for quantity, (value, _) in worst.items()))


if __name__ == "__main__":
    sys.exit(main())
