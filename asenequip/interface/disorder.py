"""Site disorder: which of the half-occupied sites are taken, which anions change places, which atoms are missing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch

SWEEPS = 60
_RANGE = 0.3
"""Angstrom: how fast the penalty of two close occupied sites falls with their distance."""


def occupy(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Occupy one site of each close pair among the half-occupied ones, the occupied ones kept apart.

    Half-occupied sites come in pairs too close for two atoms, as 48h of argyrodite does. From a random choice, pairs
    are flipped, a random half of those that gain at a time, as long as this lowers the sum over occupied sites of
    exp(-distance / 0.3 Angstrom): a local minimum, another one for each seed.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic, with the array ``occupancy`` of `asenequip.interface.crystals.make_crystal`; not changed.
    rng : numpy.random.Generator

    Returns
    -------
    ase.Atoms
        The occupied sites only.

    Raises
    ------
    ValueError
        For occupancies other than 1 and 1/2, or half-occupied sites that are not paired.
    """
    if "occupancy" not in atoms.arrays:
        return atoms.copy()
    occupancy = atoms.arrays["occupancy"]
    if not np.isin(occupancy, (0.5, 1.0)).all():
        remedy = "Round them in the array 'occupancy', or take atoms out beforehand and set it to 1."
        raise parameter_error(
            "atoms", "occupy", "with occupancies of 1 or 1/2", sorted(set(occupancy.tolist())), remedy
        )
    half = np.flatnonzero(occupancy == 0.5)
    if not len(half):
        return atoms.copy()
    pairs = _close_pairs(atoms[half])
    chosen = pairs[np.arange(len(pairs)), _keep_apart(atoms[half], pairs, rng)]
    keep = occupancy == 1.0
    keep[half[chosen]] = True
    occupied = atoms[keep]
    occupied.arrays["occupancy"] = np.ones(len(occupied))
    return occupied


def _close_pairs(sites: Atoms) -> np.ndarray:
    """Each site with its nearest, (n_pairs, 2) int64."""
    distances, nearest = NeighbourSearch(sites, 2.5).nearest(np.arange(len(sites)))
    if not np.isfinite(distances).all() or not np.array_equal(nearest[nearest], np.arange(len(sites))):
        raise ValueError(
            "The half-occupied sites are not pairs of close ones, so which are taken cannot be chosen.\n"
            "Take a cell of at least two primitive cells in each direction, or occupy the sites beforehand."
        )
    first = np.flatnonzero(np.arange(len(sites)) < nearest)
    return np.stack([first, nearest[first]], axis=1)


def _keep_apart(sites: Atoms, pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 for each pair: which of its sites is taken, (n_pairs,) int64."""
    centres, neighbours, distances = NeighbourSearch(sites, 5.0).pairs()
    pair_of = np.empty(len(sites), np.int64)
    pair_of[pairs.ravel()] = np.repeat(np.arange(len(pairs)), 2)
    other = pair_of[centres] != pair_of[neighbours]
    centres, neighbours = centres[other], neighbours[other]
    closeness = np.exp(-distances[other] / _RANGE)
    choice = rng.integers(2, size=len(pairs))
    rows = np.arange(len(pairs))
    for _ in range(SWEEPS):
        taken = np.zeros(len(sites))
        taken[pairs[rows, choice]] = 1.0
        cost = np.bincount(centres, closeness * taken[neighbours], minlength=len(sites))
        gain = cost[pairs[rows, choice]] - cost[pairs[rows, 1 - choice]]
        better = np.flatnonzero(gain > 1e-9)
        if not len(better):
            break
        flip = better[rng.random(len(better)) < 0.5] if len(better) > 1 else better
        choice[flip] = 1 - choice[flip]
    return choice


def exchange(atoms: Atoms, sites: tuple[int, int], degree: float, rng: np.random.Generator) -> Atoms:
    """Let a share of two sites' atoms change places, as S and Cl do on 4c and 4a of argyrodite.

    Parameters
    ----------
    atoms : ase.Atoms
        With the array ``site``; not changed.
    sites : (int, int)
        Numbers of the two sites.
    degree : float
        Share of the smaller site that is exchanged, 0 to 1; 0.5 is full disorder where both sites are equally many.
    rng : numpy.random.Generator

    Returns
    -------
    ase.Atoms
        Same positions and composition.

    Raises
    ------
    ValueError
    """
    if not 0 <= degree <= 1:
        raise parameter_error("degree", "exchange", "a float from 0 to 1", degree)
    if "site" not in atoms.arrays:
        raise parameter_error(
            "atoms", "exchange", "atoms with an array 'site'", "none", "Set it: atoms.set_array('site', numbers)."
        )
    mixed = atoms.copy()
    first, second = (np.flatnonzero(atoms.arrays["site"] == site) for site in sites)
    if not len(first) or not len(second):
        raise parameter_error("sites", "exchange", "two numbers that occur in the array 'site'", sites)
    count = round(degree * min(len(first), len(second)))
    one = rng.choice(first, count, replace=False)
    two = rng.choice(second, count, replace=False)
    numbers = mixed.numbers.copy()
    numbers[one], numbers[two] = atoms.numbers[two], atoms.numbers[one]
    mixed.numbers = numbers
    return mixed


def share_sites(atoms: Atoms, shares: Mapping[int, Mapping[str, float]], rng: np.random.Generator) -> Atoms:
    """Give the atoms of sites that elements share their elements, at random, as many of each as its share says.

    Parameters
    ----------
    atoms : ase.Atoms
        With the array ``site``; not changed.
    shares : dict of int to dict of str to float
        Of each shared site, the elements and their shares, which sum to 1.
    rng : numpy.random.Generator

    Returns
    -------
    ase.Atoms
        Same positions.
    """
    mixed = atoms.copy()
    for site, parts in shares.items():
        mine = rng.permutation(np.flatnonzero(atoms.arrays["site"] == site))
        ends = np.round(np.cumsum(list(parts.values())) * len(mine)).astype(int)
        for symbol, part in zip(parts, np.split(mine, ends[:-1]), strict=True):
            mixed.symbols[part] = symbol
    return mixed


def remove_atoms(atoms: Atoms, symbol: str, fraction: float, rng: np.random.Generator) -> Atoms:
    """Take out a share of an element's atoms, at random: vacancies.

    Parameters
    ----------
    atoms : ase.Atoms
        Not changed.
    symbol : str
    fraction : float
        0 to below 1; the number is rounded.
    rng : numpy.random.Generator

    Returns
    -------
    ase.Atoms

    Raises
    ------
    ValueError
    """
    if not 0 <= fraction < 1:
        raise parameter_error("fraction", "remove_atoms", "a float in [0, 1)", fraction)
    candidates = np.flatnonzero(atoms.symbols == symbol)
    if fraction and not len(candidates):
        raise parameter_error("symbol", "remove_atoms", "an element of the atoms", symbol)
    keep = np.ones(len(atoms), bool)
    keep[rng.choice(candidates, round(fraction * len(candidates)), replace=False)] = False
    return atoms[keep]
