"""ASE calculators of compiled Allegro potentials, their trainer, and the analysis of what atoms became."""

__version__ = "0.1.0"
