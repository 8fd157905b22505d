"""Make the tables of the worked study of an interphase from benchmarks/results/interphase.json.

No figure of theirs is written by hand: ``python docs/study_tables.py`` prints what the page will say, and
benchmarks/bench_interphase.py fills the file.
"""

from __future__ import annotations

import json
from typing import Any

from tables import RESULTS, table


def potential(found: dict[str, Any]) -> str:
    """Errors of each round of training."""
    kinds, rounds = found["kinds"], found["rounds"]
    sets = list(rounds[0]["test_forces_mae_eV_per_A"])
    head = (
        "",
        "frames learnt",
        *(f"{kind}: forces (eV/Å)" for kind in kinds),
        *(f"{kind}: stress (GPa)" for kind in kinds),
    )
    rows: list[tuple[Any, ...]] = [
        ("forces of the labels", "", *(kind["forces_rms_eV_per_A"] for kind in kinds.values()), *("" for _ in kinds))
    ]
    for each in rounds:
        errors = [each["unseen"][kind] for kind in kinds]
        forces, stress = ([error[key] for error in errors] for key in ("forces_rmse_eV_per_A", "stress_rmse_GPa"))
        rows.append((each["name"], each["learnt_frames"], *forces, *stress))
    many = ", ".join(f"{kind['frames']} {name}" for name, kind in kinds.items())
    bulk = [(each["name"], *each["test_forces_mae_eV_per_A"].values()) for each in rounds]
    return (
        f"Roots of the mean squares on labelled frames that no round had seen ({many}):\n\n{table(head, rows)}\n"
        f"Mean absolute force errors (eV/Å) on test frames of the bulk:\n\n{table(('', *sets), bulk)}"
    )


def study(part: dict[str, Any]) -> str:
    """What became of an interface."""
    length, kelvin = part["time_ps"][1] - part["time_ps"][0], part["temperature_K"]
    rows = [(f"atoms, {name}", *map(int, counts)) for name, counts in part["classes"].items() if any(counts)]
    rows += [(f"bonds {name}", int(bond["first"]), int(bond["last"])) for name, bond in part["bonds"].items()]
    rows += [(f"interphase {side} (Å)", *ends) for side, ends in part.get("thickness_A", {}).items()]
    flows = [(name, *value) for name, value in part.get("diffusion_A2_per_ps", {}).items()]
    named = [(group, *name) for group, name in part["phases"].items()]
    return "\n".join(
        (
            f"### {part['title']}\n",
            f"{part['atoms']} atoms, {length:.4g} ps, {kelvin:.0f} K on average.\n",
            table(("", "first frame", "last frame"), rows),
            table(("diffusion by layer", "D (Å²/ps)", "±"), flows),
            table(("class, whole time", "is most like", "similarity"), named),
        )
    )


def mechanics(found: dict[str, Any], published: dict[str, str], grids: list[dict[str, float]]) -> str:
    """Lattice and elastic constants at rest, and those of lithium that the labels' own method has."""
    places = ((0, 0), (0, 1), (3, 3))
    rows = [
        (
            name,
            crystal["lattice_parameter_A"],
            *(crystal["tensor_GPa"][i][j] for i, j in places),
            crystal.get("bulk_GPa"),
            crystal.get("shear_GPa"),
            published[name],
        )
        for name, crystal in found.items()
    ]
    head = ("", "a (Å)", "C11 (GPa)", "C12", "C44", "bulk", "shear", "published")
    text = "### Mechanics\n\nAt rest, one arrangement of lithium in Li6PS5Cl.\n\n" + table(head, rows)
    if grids:
        named = [(f"{row['points']} points", row["C11_GPa"], row["C12_GPa"]) for row in grids]
        text += "\nLithium by PBE, by the grid along each axis of 2 atoms; the labels of metal are like 4 or 6:\n\n"
        text += table(("", "C11 (GPa)", "C12"), named)
    return text


def diffusion(found: dict[str, Any], published: dict[str, str]) -> str:
    """Lithium in the bulk electrolyte."""
    rows = [(f"{kelvin} K, D of Li (Å²/ps)", *value, "") for kelvin, value in found["A2_per_ps"].items()]
    if "activation_energy_eV" in found:
        rows.append(
            ("activation energy (eV)", *found["activation_energy_eV"], published["activation_energy_eV"]),
        )
    text = f"Half of S and Cl exchanged, {found['atoms']} atoms, {found['steps'] * 0.002:g} ps each.\n"
    return f"### Diffusion in Li6PS5Cl\n\n{text}\n" + table(("", "found", "±", "published"), rows)


def page() -> str:
    """All tables of the record."""
    record = json.loads((RESULTS / "interphase.json").read_text())
    published = record["published"]
    parts = ["Made from `benchmarks/results/interphase.json`; intervals are of the 95 percent level.\n"]
    if "potential" in record:
        parts.append(potential(record["potential"]))
    if "chlorine_contacts" in record:
        found = record["chlorine_contacts"]
        close = f"{found['atoms_within_3_A']} of {found['atoms']} had another one within 3 Å at once"
        parts.append(
            f"Chlorine in Li | Li6PS5Cl | Li: the closest pair came to {found['closest_A']} Å; at most {close}.\n"
        )
    parts += [study(part) for name, part in record.items() if name.startswith("li_")]
    if "mechanics" in record:
        parts.append(mechanics(record["mechanics"], published, record["level"].get("lithium_by_grid", [])))
    if "diffusion" in record:
        parts.append(diffusion(record["diffusion"], published))
    return "\n".join(parts)


if __name__ == "__main__":
    print(page())
