"""What can be wrong between a guide and a model, each asked of one run of both."""

import math
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vitools.engines.preflight.guide_data import refuse_miscounted_data
from vitools.engines.preflight.guide_support import refuse_other_support
from vitools.errors import (
    ModelError,
    OptionError,
    VitoolsError,
    VitoolsWarning,
    first_words,
)
from vitools.posterior.guided import build_guide, point_sites
from vitools.problem import Problem
from vitools.problem.sites import is_delta, is_subsample, nearest


class GuideTrial:
    """A guide run once, the model run at its draws, and a method for each question to both.

    A method returns what it found in words, raises what is wrong, or returns ``None`` where an
    earlier answer leaves nothing to ask. They are to be called in the order of :data:`QUESTIONS`.
    """

    def __init__(self, problem: Problem, guide: Any) -> None:
        self.problem, self.guide = problem, guide
        self.title = f"guide {getattr(guide, '__name__', type(guide).__name__)}"
        self.guide_run: Trace
        self.model_run: Trace | None = None
        self.drawn: dict[str, Any] = {}
        self.wide: list[str] = []
        self.points: tuple[str, ...] = ()

    def runs(self) -> str:
        """Can it be called with the model's arguments?"""
        try:
            self.guide = build_guide(self.problem, self.guide)
            self.guide_run = self._run_guide()
        except (VitoolsError, Warning):
            raise
        except TypeError as error:
            raise OptionError(
                f"{self.title} could not be called with the model's arguments ({error}): a guide "
                "takes the same arguments as its model, a guide class the model alone."
            ) from error
        except Exception as error:
            raise ModelError(
                f"{self.title} raised {type(error).__name__} when run on the model's data: "
                f"{first_words(error)}. Run it by itself, outside vitools, to find the line."
            ) from error
        self.drawn = {
            name: node
            for name, node in self.guide_run.nodes.items()
            if node["type"] == "sample"
            and not is_subsample(node)
            and not node["infer"].get("is_auxiliary")
        }
        return "takes the model's arguments"

    def sites(self) -> str:
        """Does it draw every latent that is not summed out, and nothing else?"""
        problem = self.problem
        for name in self.drawn:
            if name in problem.deterministics:
                raise OptionError(
                    f"{self.title} draws '{name}', which model '{problem.name}' computes from others "
                    "(a Delta, or pyro.deterministic) and does not draw. Make the guide of the model "
                    f"without it, poutine.block(model, hide=['{name}']), or use one of "
                    "vitools.guides, which leave it out."
                )
            if name not in problem.latents:
                raise OptionError(
                    f"{self.title} draws '{name}', which is no latent of model '{problem.name}' "
                    f"(latents: {', '.join(problem.latents)}).{nearest(name, problem.latents)} "
                    "Mark helper variables infer={'is_auxiliary': True}."
                )
        missing = [name for name in problem.drawn if name not in self.drawn]
        if missing:
            if problem.not_summed.keys() & set(missing):
                problem.refuse_unlisted("svi()")
            raise OptionError(
                f"{self.title} does not draw {', '.join(missing)}: every latent of model "
                f"'{problem.name}' that is not summed out needs a draw, or its prior would "
                "silently be used instead."
            )
        return f"draws {', '.join(self.drawn)}"

    def spread(self) -> str:
        """Has every draw a density?"""
        self.points = point_sites(self.problem, self.guide)
        if not self.points:
            return "no point estimates"
        return f"point estimate of {', '.join(self.points)}: no widths, which laplace() gives"

    def supports(self) -> str:
        """Does it draw from each latent's whole support, and from nowhere else?"""
        partial, notes = None, []
        for name, node in self._kept().items():
            if not is_delta(node):
                try:
                    found = refuse_other_support(self.title, self.problem.latents[name], node)
                    if found:
                        notes.append(found)
                        self.wide.append(name)
                except VitoolsWarning as warning:  # another site may be worse
                    partial = partial or warning
        if partial is not None:
            raise partial
        return "; ".join(notes) or "those of the priors"

    def plates(self) -> str:
        """Are plates of the same size, and minibatches the same rows?"""
        self._run_model()
        self._raise_found("plates")
        if self.model_run is not None:
            self._refuse_own_minibatch(self.model_run)
        return ", ".join(self.problem.plates) or "none"

    def shapes(self) -> str:
        """Have its draws the shapes that the model expects?"""
        self._raise_found("shapes")
        self._raise_found("model")
        return "those of the model"

    def scales(self) -> str | None:
        """Do both weigh each site alike?

        A guide made from the model, as Pyro's and ours are, weighs its draws by their plates alone. A
        ``poutine.scale`` of the model is part of the density that every engine fits then, p(θ_s)^w,
        of which q is one distribution: E_q[w log p - log q] is its bound.
        """
        if self.model_run is None:
            return None
        powers = []
        for name, node in self._kept().items():
            pair = (node["scale"], self.model_run.nodes[name]["scale"])
            ours, theirs = map(torch.as_tensor, pair)
            if not torch.equal(ours, theirs.to(ours)):
                if isinstance(self.guide, AutoGuide) and _is_of_plates(ours, node):
                    powers.append(name)
                    continue
                raise OptionError(
                    f"{self.title} weighs '{name}' by {ours.tolist():g}, the model by "
                    f"{theirs.tolist():g}: give guide and model the same plates, subsample_size "
                    "and poutine.scale."
                    if ours.dim() == theirs.dim() == 0
                    else f"{self.title} weighs '{name}' otherwise than the model: give both the "
                    "same scale."
                )
        if powers:
            return (
                f"alike; the model's poutine.scale is a power of the density of {', '.join(powers)}"
            )
        return "alike"

    def data(self) -> str | None:
        """Do minibatches count for all the data, once?"""
        if self.model_run is None:
            return None
        again = self._replayed(Messenger())
        refuse_miscounted_data(self.problem, self.model_run, again)
        return "counted once"

    def discrete(self) -> str:
        """Which discrete latents are summed out, and which are drawn?"""
        problem = self.problem
        drawn = [k for k in self.drawn if k in problem.latents and problem.latents[k].is_discrete]
        summed = [k for k in problem.discrete if k not in drawn]
        needless = [k for k in drawn if k in problem.discrete]
        if summed and all(p.subsample_size == p.size for p in problem.plates.values()):
            problem.try_on_values()  # all data's density may be too large where a minibatch's is not
        words = [f"{', '.join(summed)} summed out"] if summed else []
        words += [f"{', '.join(drawn)} drawn, without a derivative"] if drawn else []
        words += [f"less noise without {', '.join(needless)} in the guide"] if needless else []
        return "; ".join(words) or "none"

    # ---- the runs ----------------------------------------------------------------------------

    def _run_guide(self, rows: dict[str, Any] | None = None) -> Trace:
        guide = poutine.condition(self.guide, data=rows) if rows else self.guide
        return poutine.trace(guide).get_trace(*self.problem.args, **self.problem.kwargs)

    def _run_model(self) -> None:
        self.found: dict[str, VitoolsError] = {}
        try:
            self.model_run = self._replayed(_Agreement(self.title, self.guide_run, self._kept()))
        except _Disagree as error:
            self.found[error.about] = error.complaint
        except (VitoolsError, Warning):
            raise
        except Exception as error:
            self.found["model"] = ModelError(
                f"model '{self.problem.name}' raised {type(error).__name__} at a draw of "
                f"{self.title}: {first_words(error)}."
            )
            self.found["model"].__cause__ = error

    def _replayed(self, watch: Messenger) -> Trace:
        with poutine.replay(trace=self.guide_run), watch:
            return poutine.trace(self.problem.call).get_trace()

    def _raise_found(self, about: str) -> None:
        if about in self.found:
            raise self.found[about]

    def _kept(self) -> dict[str, Any]:
        """The draws of latents that are not summed out."""
        return {name: node for name, node in self.drawn.items() if name in self.problem.drawn}

    def _refuse_own_minibatch(self, model_run: Trace) -> None:
        """A minibatch of latents that the guide draws must be chosen in a plate of the guide."""
        for name, node in model_run.nodes.items():
            if node["type"] != "sample" or not is_subsample(node) or name in self.guide_run:
                continue
            if len(node["value"]) < node["fn"].size and any(
                n["type"] == "sample"
                and other in self.guide_run
                and any(frame.name == name for frame in n["cond_indep_stack"])
                for other, n in model_run.nodes.items()
            ):
                raise OptionError(
                    f"{self.title} chooses its own minibatch of plate '{name}', not the model's: "
                    "use a plate of the same name and subsample_size in both."
                )


QUESTIONS = (
    GuideTrial.runs,
    GuideTrial.sites,
    GuideTrial.spread,
    GuideTrial.supports,
    GuideTrial.plates,
    GuideTrial.shapes,
    GuideTrial.scales,
    GuideTrial.data,
    GuideTrial.discrete,
)


def _is_of_plates(scale: Tensor, node: dict[str, Any]) -> bool:
    """Whether a site's weight is that of the minibatches of its plates, N/B each, and of nothing else."""
    frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
    weight = math.prod((frame.full_size or frame.size) / frame.size for frame in frames)
    return bool(torch.allclose(scale.double(), torch.tensor(weight).double()))


class _Disagree(Exception):
    """Ends the model's run at the first site where it and the guide disagree."""

    def __init__(self, about: str, complaint: VitoolsError) -> None:
        super().__init__(str(complaint))
        self.about, self.complaint = about, complaint


class _Agreement(Messenger):
    """Compares each site the model reaches with the guide's, just before it takes its value.

    The model would otherwise fail somewhere behind a value of another shape, or go on with the
    guide's rows of a plate where its own code has taken other rows of the data.
    """

    def __init__(self, title: str, guide_run: Trace, drawn: dict[str, Any]) -> None:
        super().__init__()
        self.title, self.guide_run, self.drawn = title, guide_run, drawn

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if is_subsample(msg):
            if name in self.guide_run:
                self._compare_plates(name, msg, self.guide_run.nodes[name])
        elif name in self.drawn and self.drawn[name]["value"].shape != msg["fn"].shape():
            raise _Disagree(
                "shapes",
                OptionError(
                    f"{self.title} draws '{name}' with shape "
                    f"{tuple(self.drawn[name]['value'].shape)}, but the model expects "
                    f"{tuple(msg['fn'].shape())}."
                ),
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
            words = (
                f"{self.title} takes {found} rows in plate '{name}', the model {rows} of {size}: "
                "use a plate of the same size and subsample_size in both."
            )
            raise _Disagree("plates", OptionError(words))
        if given is not None and not torch.equal(given, guide["value"].to(given)):
            words = (
                f"the model says which rows plate '{name}' takes (subsample=…), but {self.title} "
                "takes others, which would silently replace them. Give the guide the same rows; "
                f"an automatic guide by create_plates, a function of the model's arguments that "
                f"returns pyro.plate('{name}', {size}, subsample=…, dim=…)."
            )
            raise _Disagree("plates", OptionError(words))
