"""Shipped models: ordinary Pyro models with data to try them on.

Each is a module or package with ``model`` and ``simulate``. The table below is what the
command line knows of them; it imports nothing until a model is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Example:
    """A model with data, ready for ``Problem(example.model, *example.args, **example.kwargs)``.

    Attributes:
        description: the data in one line, for the head of a report.
        guide: the model's own guide, where it brings one (an amortised encoder).
        learning_rate: of Adam, where the engine's default does not suit (networks).
        pictures: of a fit, ``pictures(posterior)``; matplotlib figures by file name.
        nested: sites on whose value ``cavi`` makes all others depend, where its own choice does not suit.
        coords: labels for plates and other dims, for ``Problem.with_coords``.
        validation: arguments of the model like ``args``, of other data: what a bound on it says
            when to stop training.
        held_out: the same of data that has no part in the fit: what models are compared on.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    description: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    guide: Any = None
    learning_rate: float | None = None
    pictures: Callable[[Any], dict[str, Any]] | None = None
    nested: tuple[str, ...] | None = None
    coords: dict[str, list[str]] = field(default_factory=dict)
    validation: tuple[Any, ...] = ()
    held_out: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ShippedModel:
    """One row of the table: ``module`` has the function ``example`` that builds an Example."""

    module: str
    example: str
    summary: str

    def build(self, seed: int) -> Example:
        """The model on its example data; simulated data depend on ``seed``."""
        return getattr(import_module(self.module), self.example)(seed)


SHIPPED: dict[str, ShippedModel] = {
    "coin": ShippedModel(
        "vitools.models.coin", "example", "the bias of a coin; posterior known exactly"
    ),
    "two-dice": ShippedModel(
        "vitools.models.two_dice",
        "example",
        "two hidden dice whose sum picks the die that is rolled; simulated",
    ),
    "regression": ShippedModel(
        "vitools.models.bayesian_regression",
        "example",
        "linear regression with unknown noise; the diabetes data",
    ),
    "regression-ard": ShippedModel(
        "vitools.models.bayesian_regression",
        "ard_example",
        "linear regression with a precision per weight; the diabetes data",
    ),
    "logistic-regression": ShippedModel(
        "vitools.models.bayesian_regression", "logistic_example", "binary outcomes; simulated"
    ),
    "poisson-regression": ShippedModel(
        "vitools.models.bayesian_regression", "poisson_example", "counts; simulated"
    ),
    "vae": ShippedModel(
        "vitools.models.vae",
        "example",
        "a variational autoencoder with its encoder as guide; 8×8 digits",
    ),
    "hierarchical-vae": ShippedModel(
        "vitools.models.hierarchical_vae",
        "example",
        "a VAE with two stochastic layers, inferred from the bottom up; 8×8 digits",
    ),
    "conditional-vae": ShippedModel(
        "vitools.models.conditional_vae",
        "example",
        "a VAE of images given their class, with its encoder as guide; 8×8 digits",
    ),
    "topic-vae": ShippedModel(
        "vitools.models.topic_vae",
        "example",
        "topics of documents by a VAE (ProdLDA), with its encoder as guide; simulated",
    ),
    "wave-packets": ShippedModel(
        "vitools.models.wave_packets",
        "example",
        "position, momentum and width of quantum wave packets seen with noise; simulated",
    ),
    "mixed": ShippedModel(
        "vitools.models.groups.mixed",
        "example",
        "a level and slopes that differ by group, normal outcome; simulated",
    ),
    "mixed-binomial": ShippedModel(
        "vitools.models.groups.mixed",
        "binomial_example",
        "log-odds that differ by group, counts of trials; simulated",
    ),
    "item-response": ShippedModel(
        "vitools.models.groups.item_response",
        "example",
        "how able persons are and how difficult items (Rasch); simulated",
    ),
    "mixture": ShippedModel(
        "vitools.models.mixtures.mixture",
        "example",
        "clusters: normals with full covariances; simulated",
    ),
    "local-level": ShippedModel(
        "vitools.models.series.local_level",
        "example",
        "a level that wanders, seen with noise; the flow of the Nile",
    ),
    "state-space": ShippedModel(
        "vitools.models.series.state_space",
        "example",
        "a level and its trend, both of which wander; simulated",
    ),
    "hidden-markov": ShippedModel(
        "vitools.models.series.hidden_markov",
        "example",
        "regimes that follow one another, each with its level and spread; simulated",
    ),
    "pca": ShippedModel(
        "vitools.models.factors.pca",
        "example",
        "principal components, a relevance for each; simulated",
    ),
    "factor-analysis": ShippedModel(
        "vitools.models.factors.pca",
        "factor_analysis_example",
        "the same with a noise for each column; simulated",
    ),
    "poisson-factorisation": ShippedModel(
        "vitools.models.factors.poisson_factorisation",
        "example",
        "counts of users and items by tastes and traits; simulated",
    ),
    "lda": ShippedModel(
        "vitools.models.factors.lda",
        "example",
        "topics of documents (latent Dirichlet allocation); simulated",
    ),
    "gaussian-field": ShippedModel(
        "vitools.models.physics.gaussian_field",
        "example",
        "a smooth field on a lattice, measured at points; posterior known exactly; simulated",
    ),
    "line-field": ShippedModel(
        "vitools.models.physics.line_field",
        "example",
        "a field along a line (splines, Matérn) as a chain, read with noise; simulated",
    ),
    "qubit-readout": ShippedModel(
        "vitools.models.physics.qubit",
        "readout_example",
        "shots of a qubit about two levels, calibrated by themselves; simulated",
    ),
    "qubit-trajectory": ShippedModel(
        "vitools.models.physics.qubit",
        "trajectory_example",
        "a qubit watched through noise while it jumps; simulated",
    ),
    "cavity": ShippedModel(
        "vitools.models.physics.cavity",
        "example",
        "photons in a cavity, given its clicks: laser or thermal light; simulated",
    ),
    "oscillator": ShippedModel(
        "vitools.models.physics.oscillator",
        "example",
        "frequency and damping of an oscillator seen now and then, several modes; simulated",
    ),
    "contraction": ShippedModel(
        "vitools.models.physics.consistency",
        "example",
        "one number measured again and again under a prior that is far off; simulated",
    ),
    "ising": ShippedModel(
        "vitools.models.physics.ising",
        "example",
        "4 × 4 spins that pull at each other; log Z known exactly",
    ),
}
