"""Other people's drivers: LAMMPS, torch-sim and i-PI run an Allegro potential through these modules."""
