"""The Allegro potential: hyperparameters, parts, assembly, derivatives."""
