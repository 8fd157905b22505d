"""What potential and labels of the worked study of an interphase are worth; fills benchmarks/results/interphase.json.

    python benchmarks/bench_interphase.py study runs/study/record.json
    python benchmarks/bench_interphase.py potential labelled.extxyz "first round=runs/one=learnt_one.extxyz" ...
    python benchmarks/bench_interphase.py labels "P2S5, 28 atoms=given.extxyz=labelled.extxyz" ...

``study`` takes over the numbers of examples/interphase.py. ``potential`` gives the force errors of each round of
training (its name, run directory, and the interface frames that it learnt, where it did) on those of the labelled
frames out of dynamics that no round learnt, and the errors on the test frames of each run. ``labels`` compares two
labellers on the same structures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from asenequip import AllegroCalculator
from asenequip.files import replace_file

RECORD = Path(__file__).resolve().parent / "results" / "interphase.json"
FROM_DYNAMICS = "hot-"
"""How ``atoms.info["origin"]`` of frames begins that came out of dynamics (examples/make_interface_data.py)."""


def rms(values: np.ndarray, digits: int) -> float:
    return round(float(np.sqrt(np.mean(np.square(values)))), digits)


def potential(labelled: list[Atoms], rounds: list[list[str]]) -> dict[str, Any]:
    """Errors of each round, given as [name, run directory] or [name, run directory, learnt frames]."""
    learnt = [read(files[0], ":") if files else [] for _, _, *files in rounds]
    known = {atoms.info["origin"] for frames in learnt for atoms in frames if "origin" in atoms.info}
    unseen = [a for a in labelled if a.info["origin"].startswith(FROM_DYNAMICS) and a.info["origin"] not in known]
    if not unseen:
        raise SystemExit("No labelled frame out of dynamics is left that no round has learnt. Label some more of them.")
    wanted = np.concatenate([atoms.get_forces() for atoms in unseen])
    rows = []
    for (name, run, *_), frames in zip(rounds, learnt, strict=True):
        calculator = AllegroCalculator(Path(run) / "model.asnq")
        found = np.concatenate([result["forces"] for result in calculator.evaluate(unseen)])
        errors = json.loads((Path(run) / "summary.json").read_text())["test"]
        row: dict[str, Any] = {"name": name, "interface_frames": len(frames)}
        row["unseen_interface_forces_rmse_eV_per_A"] = rms(found - wanted, 3)
        for key, quantity, digits in (("forces_mae_eV_per_A", "forces_mae", 4), ("energy_mae_eV", "energy_mae", 5)):
            sets = {k.split("@")[1]: round(v, digits) for k, v in errors.items() if k.startswith(f"{quantity}@")}
            row[f"test_{key}"] = sets
        rows.append(row)
    return {"unseen_frames": len(unseen), "unseen_forces_rms_eV_per_A": rms(wanted, 3), "rounds": rows}


def labels(pairs: list[list[str]]) -> list[dict[str, Any]]:
    """Forces of two labellers on the same structures, given as [name, first file, second file]."""
    rows = []
    for name, *files in pairs:
        one, other = (np.concatenate([a.get_forces() for a in read(file, ":")]).ravel() for file in files)
        slope = round(float(one @ other / (one @ one)), 4)
        rows.append({"frame": name, "difference": rms(other - one, 4), "forces_rms": rms(one, 4), "slope": slope})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="what", required=True)
    verbs.add_parser("study").add_argument("record", type=Path)
    verb = verbs.add_parser("potential")
    verb.add_argument("labelled", type=Path)
    verb.add_argument("rounds", nargs="+", help="NAME=RUN or NAME=RUN=LEARNT_FRAMES")
    verbs.add_parser("labels").add_argument("pairs", nargs="+", help="NAME=FRAMES=OTHER_FRAMES")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if options.what == "study":
        record |= json.loads(options.record.read_text())
    elif options.what == "potential":
        rounds = [text.split("=") for text in options.rounds]
        record["potential"] = potential(read(options.labelled, ":"), rounds)
    else:
        key = "forces_rms_difference_from_given_labels_eV_per_A"
        record.setdefault("level", {})[key] = labels([text.split("=") for text in options.pairs])
    replace_file(RECORD, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
