"""Does this guide fit this problem? Asked before the first step, answered by name."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace

from vitools.errors import OptionError
from vitools.isolation import isolated, seeded
from vitools.posterior import Posterior
from vitools.posterior.guided import build_guide
from vitools.problem import Problem
from vitools.sites import is_subsample, nearest


def check_guide(problem: Problem, guide: Any) -> None:
    """Say what and where a guide disagrees with a model: sites, shapes, scales, minibatches.

    :func:`~vitools.svi` asks the same before its first step. Nothing is fitted or kept.

    Args:
        guide: a Pyro guide, or a guide class to be called with the problem's model.

    Raises:
        OptionError: names the site or plate, what was expected and what was got.

    Example:
        >>> import torch
        >>> from vitools import Problem, check_guide
        >>> from vitools.guides import AutoKumaraswamy
        >>> from vitools.models import coin
        >>> check_guide(Problem(coin.model, torch.tensor([1.0, 0.0])), AutoKumaraswamy)
    """
    with seeded(0), isolated():
        refuse_mismatch(problem, build_guide(problem, guide))


def refuse_mismatch(problem: Problem, guide: Any) -> None:
    """:func:`check_guide` inside whatever parameter store is active."""
    args, kwargs = problem.args, problem.kwargs
    title = f"guide {getattr(guide, '__name__', type(guide).__name__)}"
    try:
        guide_run = poutine.trace(guide).get_trace(*args, **kwargs)
    except TypeError as error:
        raise OptionError(
            f"{title} could not be called with the model's arguments ({error}): a guide takes the "
            "same arguments as its model."
        ) from error
    model_run = poutine.trace(poutine.replay(problem.call, trace=guide_run)).get_trace()
    sites = {
        name: node
        for name, node in guide_run.nodes.items()
        if node["type"] == "sample"
        and not is_subsample(node)
        and not node["infer"].get("is_auxiliary")
    }
    for name in sites:
        if name not in problem.latents:
            raise OptionError(
                f"{title} draws '{name}', which is no latent of model '{problem.name}' (latents: "
                f"{', '.join(problem.latents)}).{nearest(name, problem.latents)} Mark helper "
                "variables infer={'is_auxiliary': True}."
            )
    missing = [name for name in problem.continuous if name not in sites]
    if missing:
        raise OptionError(
            f"{title} does not draw {', '.join(missing)}: every continuous latent of model "
            f"'{problem.name}' needs a draw, or its prior would silently be used instead."
        )
    _check_minibatches(title, guide_run, model_run)
    for name, node in sites.items():
        if name in problem.discrete:
            continue
        expected = model_run.nodes[name]["fn"].shape()
        if node["value"].shape != expected:
            raise OptionError(
                f"{title} draws '{name}' with shape {tuple(node['value'].shape)}, but the model "
                f"expects {tuple(expected)}."
            )
        ours, theirs = (torch.as_tensor(run.nodes[name]["scale"]) for run in (guide_run, model_run))
        if not torch.equal(ours, theirs.to(ours)):
            raise OptionError(
                f"{title} weighs '{name}' by {ours.tolist():g}, the model by {theirs.tolist():g}: "
                "give guide and model the same plates, subsample_size and poutine.scale."
                if ours.dim() == theirs.dim() == 0
                else f"{title} weighs '{name}' otherwise than the model: give both the same scale."
            )


def check_start(problem: Problem, start: Posterior) -> None:
    """Refuse a fit of other sites as the place to begin."""
    expected, found = (
        {name: tuple(site.shape) for name, site in made.continuous.items()}
        for made in (problem, start.problem)
    )
    if expected != found:
        raise OptionError(
            f"start is a fit of model '{start.problem.name}' with sites {found}, expected those of "
            f"model '{problem.name}': {expected}. Give a fit of the same model."
        )


def _check_minibatches(title: str, guide_run: Trace, model_run: Trace) -> None:
    """The minibatch a plate chose in the guide must be the one the model used."""
    for name, node in model_run.nodes.items():
        if node["type"] != "sample" or not is_subsample(node):
            continue
        chosen = guide_run.nodes.get(name)
        fn = node["fn"]
        is_minibatch = fn.subsample_size is not None and fn.subsample_size < fn.size
        drawn_by_guide = any(
            n["type"] == "sample"
            and other != name
            and other in guide_run.nodes
            and any(f.name == name for f in n["cond_indep_stack"])
            for other, n in model_run.nodes.items()
        )
        if (
            is_minibatch
            and drawn_by_guide
            and (chosen is None or not torch.equal(chosen["value"], node["value"]))
        ):
            raise OptionError(
                f"{title} chooses its own minibatch of plate '{name}', not the model's: use a plate "
                f"of the same name and subsample_size in both."
            )
