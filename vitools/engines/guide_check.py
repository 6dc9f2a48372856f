"""Does this guide fit this problem? Asked before the first step, answered by name."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger

from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import isolated, seeded
from vitools.posterior import Posterior
from vitools.posterior.guided import build_guide
from vitools.problem import Problem
from vitools.sites import is_delta, is_subsample, nearest


def check_guide(problem: Problem, guide: Any) -> None:
    """Say what and where a guide disagrees with a model: sites, shapes, scales, minibatches.

    :func:`~vitools.svi` asks the same before its first step. Nothing is fitted or kept.

    Args:
        guide: a Pyro guide, or a guide class to be called with the problem's model.

    Raises:
        OptionError: names the site or plate, what was expected and what was got.
        NotSupportedError: names the sites of which the guide is a point estimate.

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
    drawn = {
        name: node
        for name, node in guide_run.nodes.items()
        if node["type"] == "sample"
        and not is_subsample(node)
        and not node["infer"].get("is_auxiliary")
    }
    _check_names(title, drawn, problem)
    continuous = {name: node for name, node in drawn.items() if name not in problem.discrete}
    _refuse_points(title, continuous, guide, guide_run, problem)
    with poutine.replay(trace=guide_run), _Agreement(title, guide_run, continuous):
        model_run = poutine.trace(problem.call).get_trace()
    _check_minibatches(title, guide_run, model_run)
    for name, node in continuous.items():
        ours, theirs = (torch.as_tensor(n["scale"]) for n in (node, model_run.nodes[name]))
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


class _Agreement(Messenger):
    """Compares each site the model reaches with the guide's, just before it takes its value.

    The model would otherwise fail somewhere behind a value of another shape, or go on with the
    guide's rows of a plate where its own code has taken other rows of the data.
    """

    def __init__(self, title: str, guide_run: Trace, drawn: Mapping[str, Any]) -> None:
        super().__init__()
        self.title, self.guide_run, self.drawn = title, guide_run, drawn

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if is_subsample(msg):
            if name in self.guide_run:
                self._compare_plates(name, msg, self.guide_run.nodes[name])
        elif name in self.drawn and self.drawn[name]["value"].shape != msg["fn"].shape():
            raise OptionError(
                f"{self.title} draws '{name}' with shape "
                f"{tuple(self.drawn[name]['value'].shape)}, but the model expects "
                f"{tuple(msg['fn'].shape())}."
            )

    def _compare_plates(self, name: str, model: Any, guide: Any) -> None:
        given, size = model["value"], model["fn"].size
        rows = size if given is None else len(given)
        if given is None and model["fn"].subsample_size is not None:
            rows = min(size, model["fn"].subsample_size)
        if not is_subsample(guide) or (len(guide["value"]), guide["fn"].size) != (rows, size):
            found = (
                f"{len(guide['value'])} of {guide['fn'].size}" if is_subsample(guide) else "none"
            )
            raise OptionError(
                f"{self.title} takes {found} rows in plate '{name}', the model {rows} of {size}: "
                "use a plate of the same size and subsample_size in both."
            )
        if given is not None and not torch.equal(given, guide["value"].to(given)):
            raise OptionError(
                f"the model says which rows plate '{name}' takes (subsample=…), but {self.title} "
                "takes others, which would silently replace them. Give the guide the same rows; "
                f"an automatic guide by create_plates, a function of the model's arguments that "
                f"returns pyro.plate('{name}', {size}, subsample=…, dim=…)."
            )


def _check_names(title: str, drawn: Mapping[str, Any], problem: Problem) -> None:
    for name in drawn:
        if name not in problem.latents:
            raise OptionError(
                f"{title} draws '{name}', which is no latent of model '{problem.name}' (latents: "
                f"{', '.join(problem.latents)}).{nearest(name, problem.latents)} Mark helper "
                "variables infer={'is_auxiliary': True}."
            )
    missing = [name for name in problem.continuous if name not in drawn]
    if missing:
        raise OptionError(
            f"{title} does not draw {', '.join(missing)}: every continuous latent of model "
            f"'{problem.name}' needs a draw, or its prior would silently be used instead."
        )


def _refuse_points(
    title: str, drawn: Mapping[str, Any], guide: Any, guide_run: Trace, problem: Problem
) -> None:
    """A Delta is a function of other draws, as in Pyro's joint guides, or a point estimate."""
    deltas = [name for name, node in drawn.items() if is_delta(node)]
    if not deltas:
        return
    rows = {
        name: node["value"]
        for name, node in guide_run.nodes.items()
        if node["type"] == "sample" and is_subsample(node)
    }
    again = poutine.trace(poutine.condition(guide, data=rows))
    nodes = again.get_trace(*problem.args, **problem.kwargs).nodes
    points = [name for name in deltas if torch.equal(nodes[name]["value"], drawn[name]["value"])]
    if points:
        raise NotSupportedError(
            f"{title} is a point estimate of {', '.join(points)}: a point has no density to compare "
            "or trust. Draw these sites from a distribution with spread, or use a guide such as "
            "AutoLogisticNormal or AutoNormal."
        )


def _check_minibatches(title: str, guide_run: Trace, model_run: Trace) -> None:
    """A minibatch of latents that the guide draws must be chosen in a plate of the guide."""
    for name, node in model_run.nodes.items():
        if node["type"] != "sample" or not is_subsample(node) or name in guide_run:
            continue
        if len(node["value"]) < node["fn"].size and any(
            n["type"] == "sample"
            and other in guide_run
            and any(frame.name == name for frame in n["cond_indep_stack"])
            for other, n in model_run.nodes.items()
        ):
            raise OptionError(
                f"{title} chooses its own minibatch of plate '{name}', not the model's: use a plate "
                f"of the same name and subsample_size in both."
            )
