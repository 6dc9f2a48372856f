"""Information: entropies, divergences, what data tell, how sharply they point to parameters."""

from vitools.information.bounds import barber_agakov, info_nce, leave_one_out, marginal_bound
from vitools.information.conditional_entropy import (
    conditional_entropy,
    conditional_entropy_of_normal,
    conditional_entropy_of_table,
)
from vitools.information.cramer_rao import cramer_rao
from vitools.information.entropy import entropy, entropy_of_normal, entropy_of_table
from vitools.information.fisher import fisher_information
from vitools.information.information_gain import information_gain
from vitools.information.jeffreys import jeffreys_log_density, jeffreys_prior
from vitools.information.kl import kl
from vitools.information.matrices import FisherInformation, MatrixEstimate
from vitools.information.mutual_information import (
    information_table,
    mutual_information_of_normal,
    mutual_information_of_table,
)
from vitools.information.neighbours import entropy_of_samples, mutual_information
from vitools.information.reparameterisation import reparameterised, reparameterised_log_density

__all__ = [
    "FisherInformation",
    "MatrixEstimate",
    "barber_agakov",
    "conditional_entropy",
    "conditional_entropy_of_normal",
    "conditional_entropy_of_table",
    "cramer_rao",
    "entropy",
    "entropy_of_normal",
    "entropy_of_samples",
    "entropy_of_table",
    "fisher_information",
    "info_nce",
    "information_gain",
    "information_table",
    "jeffreys_log_density",
    "jeffreys_prior",
    "kl",
    "leave_one_out",
    "marginal_bound",
    "mutual_information",
    "mutual_information_of_normal",
    "mutual_information_of_table",
    "reparameterised",
    "reparameterised_log_density",
]
