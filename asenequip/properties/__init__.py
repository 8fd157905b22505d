"""Properties of crystals from any ASE calculator: phonons, elasticity, equation of state, surfaces, vacancies."""

from asenequip.properties.elasticity import ElasticTensor, elastic_tensor
from asenequip.properties.equation_of_state import EquationOfState, equation_of_state, fit_equation_of_state
from asenequip.properties.moduli import Moduli, is_stable, moduli
from asenequip.properties.phonons import Phonons, phonons
from asenequip.properties.quasiharmonic import Gruneisen, QuasiHarmonic, gruneisen, quasiharmonic
from asenequip.properties.spectra import Bands, DensityOfStates, ThermalProperties
from asenequip.properties.surfaces import SurfaceEnergy, surface_energies
from asenequip.properties.vacancies import VacancyEnergy, vacancy_energies

__all__ = [
    "Bands",
    "DensityOfStates",
    "ElasticTensor",
    "EquationOfState",
    "Gruneisen",
    "Moduli",
    "Phonons",
    "QuasiHarmonic",
    "SurfaceEnergy",
    "ThermalProperties",
    "VacancyEnergy",
    "elastic_tensor",
    "equation_of_state",
    "fit_equation_of_state",
    "gruneisen",
    "is_stable",
    "moduli",
    "phonons",
    "quasiharmonic",
    "surface_energies",
    "vacancy_energies",
]
