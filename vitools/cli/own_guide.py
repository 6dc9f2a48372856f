"""A guide of the user's own, tried once before it is fitted: its mistakes are the user's to mend."""

from typing import Any

import torch
from pyro import poutine

from vitools.engines import check_guide
from vitools.errors import ModelError, OptionError, VitoolsError
from vitools.isolation import isolated, seeded
from vitools.posterior.guided import build_guide
from vitools.problem import Problem
from vitools.sites import is_subsample
from vitools.values import out_of_bounds

TRIAL_DRAWS = 100


def try_guide(problem: Problem, guide: Any) -> None:
    """Refuse a guide that cannot be run, disagrees with the model, or leaves a site's support."""
    name = getattr(guide, "__name__", type(guide).__name__)
    try:
        check_guide(problem, guide)
        with seeded(0), isolated(), torch.no_grad():
            run = poutine.trace(build_guide(problem, guide)).get_trace(
                *problem.args, **problem.kwargs
            )
            for site, node in run.nodes.items():
                if node["type"] == "sample" and site in problem.continuous:
                    _refuse_outside(problem, name, site, node)
    except (VitoolsError, Warning):
        raise
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"guide '{name}' raised {type(error).__name__} when run on the model's data: "
            f"{words[0]}. Run it by itself, outside vitools, to find the line; a guide class is "
            "called with the model alone."
        ) from error


def _refuse_outside(problem: Problem, name: str, site: str, node: Any) -> None:
    if is_subsample(node):
        return
    draws = node["fn"].sample((TRIAL_DRAWS,))
    outside = out_of_bounds(problem.latents[site], draws)
    if outside is not None and bool(outside.any()):
        raise OptionError(
            f"guide '{name}' draws '{site}' outside its support: expected values in "
            f"{problem.latents[site].support}, got a {type(node['fn']).__name__} that leaves it. "
            "Choose a distribution over that support, or transform the draws."
        )
