"""Every guide on every shipped model that admits it: finite bounds and gradients, and some steps.

Guides that cannot serve a model must say so by name instead.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from torch.distributions import constraints

from vitools import Problem
from vitools.engines.objectives import negative_elbo
from vitools.engines.preflight.preflight import asked
from vitools.errors import ModelError, OptionError
from vitools.guides import (
    Amortized,
    AutoDirichlet,
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)
from vitools.isolation import isolated, seeded
from vitools.models import SHIPPED

NUM_STEPS = 3


def mv_kumaraswamy(problem: Problem) -> AutoMeanField:
    simplex = [k for k, s in problem.continuous.items() if is_simplex(s.support)]
    return AutoMeanField(problem.model, dict.fromkeys(simplex, "mv_kumaraswamy"))


def is_simplex(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.simplex


def amortised(problem: Problem) -> Amortized:
    def features(images: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return images.flatten(1)

    return Amortized(problem.model, plate="images", features=features)


def automatic(guide: type, **options: Any) -> Callable[[Problem], Any]:
    return lambda problem: guide(problem.model, **options)


GUIDES: dict[str, Callable[[Problem], Any]] = {
    "mean field": automatic(AutoMeanField),
    "logistic normal": automatic(AutoLogisticNormal),
    "kumaraswamy": automatic(AutoKumaraswamy),
    "dirichlet": automatic(AutoDirichlet),
    "mv kumaraswamy": mv_kumaraswamy,
    "multivariate": automatic(AutoMultivariate),
    "low rank": automatic(AutoMultivariate, rank=2),
    "spline flow": automatic(AutoFlow, flow="spline", layers=2, width=16),
    "realnvp flow": automatic(AutoFlow, flow="realnvp"),
    "autoregressive flow": automatic(AutoFlow, flow="autoregressive"),
    "amortized": amortised,
}
LIKE_OTHERS = {
    "mixed-binomial",
    "item-response",
    "mixture",
    "state-space",
    "hidden-markov",
    "pca",
    "factor-analysis",
    "poisson-factorisation",
    "lda",
    "gaussian-field",
    "line-field",
    "qubit-readout",
    "qubit-trajectory",
    "cavity",
    "contraction",
    "ising",
}
"""Models all of whose sites are of kinds that another has, and one that no guide can take."""
OF_IMAGES = {"vae", "hierarchical-vae", "conditional-vae"}
JOINT = {"multivariate", "low rank", "spline flow", "realnvp flow", "autoregressive flow"}


def refusal(guide: str, model: str) -> tuple[type[Exception], str] | None:
    """What the guide says where it cannot serve the model."""
    if guide == "amortized" and model not in OF_IMAGES:
        return OptionError, "plate 'images' holds no continuous latent"
    if guide in JOINT and model in OF_IMAGES | {"topic-vae"}:
        return ModelError, "is subsampled and has local latents"
    return None


@cache
def problem_of(model: str) -> Problem:
    example = SHIPPED[model].build(0)
    return Problem(example.model, *example.args, **example.kwargs)


def finite(tensors: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch: unsymmetric by rounding
@pytest.mark.parametrize("model", [name for name in SHIPPED if name not in LIKE_OTHERS])
@pytest.mark.parametrize("guide", GUIDES)
def test_bound_and_gradient_are_finite(guide: str, model: str) -> None:
    problem = problem_of(model)
    made = GUIDES[guide](problem)
    refused = refusal(guide, model)
    if refused:
        with isolated(), pytest.raises(refused[0], match=refused[1]):
            asked(problem, made).enforce()
        return
    with seeded(0), isolated() as state:
        asked(problem, made).enforce()
        loss = negative_elbo(problem, made, 1).loss
        loss()  # registers the parameters
    parameters = dict(state["params"])
    optimizer = torch.optim.Adam(parameters.values(), lr=0.05)
    with seeded(0), isolated(state, problem.model, made):
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            assert finite([value]), (guide, model)
            gradients = {k: p.grad for k, p in parameters.items() if p.grad is not None}
            assert gradients, "nothing depends on the guide"
            assert finite(gradients.values()), [k for k, g in gradients.items() if not finite([g])]
            optimizer.step()
    assert finite(parameters.values())


@pytest.mark.parametrize("guide", GUIDES)
def test_runs_in_plain_pyro_svi(guide: str) -> None:
    """Without anything of the engine: on two dice, whose discrete latents the ELBO sums out."""
    problem = problem_of("vae" if guide == "amortized" else "two-dice")
    made = GUIDES[guide](problem)
    elbo = TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)
    model = config_enumerate(problem.model, "parallel")
    with pyro.get_param_store().scope(), seeded(0):
        svi = SVI(model, made, pyro.optim.Adam({"lr": 0.01}), elbo)
        losses = [svi.step(*problem.args, **problem.kwargs) for _ in range(NUM_STEPS)]
    assert finite([torch.tensor(losses)])
