"""torch-sim relaxes seven rattled crystals at once with an Allegro potential, then heats them.

    python examples/drive_torchsim.py

Needs ``pip install 'asenequip[torchsim]'`` and Python 3.11 or newer.
"""

from __future__ import annotations

import torch_sim as ts
from ase.build import bulk

from asenequip.engines.torchsim import AllegroModel
from asenequip.testing.potential import emt_artifact


def main() -> None:
    model = AllegroModel(emt_artifact())
    frames = [bulk(metal, cubic=True) for metal in ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    converged = ts.generate_force_convergence_fn(force_tol=0.05, include_cell_forces=False)
    relaxed = ts.optimize(frames, model, optimizer=ts.optimizers.fire, convergence_fn=converged)
    for atoms, energy in zip(relaxed.to_atoms(), model(relaxed)["energy"].tolist(), strict=True):
        print(f"{atoms.get_chemical_formula()}  {energy / len(atoms):8.4f} eV/atom")
    hot = ts.integrate(
        relaxed, model, integrator=ts.integrators.nvt_langevin, n_steps=50, temperature=300, timestep=0.002
    )
    found = ts.quantities.calc_temperature(masses=hot.masses, momenta=hot.momenta, system_idx=hot.system_idx)
    print("temperatures:", [round(value) for value in found.tolist()], "K")


if __name__ == "__main__":
    main()
