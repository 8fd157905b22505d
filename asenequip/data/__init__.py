"""Data the package ships: every file here is computed by a script of this repository."""
