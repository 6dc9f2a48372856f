"""What an engine asks of its problem before it begins."""

from vitools.errors import NotSupportedError, OptionError
from vitools.problem.problem import Problem

NEED_NO_LATENTS = ("exact()", "explain()", "draw()")


TRAIN_PARAMS = ("svi()", "preflight()")


def check_problem(problem: object, engine: str, *, fixed_data: bool = True) -> None:
    """Refuse what is no problem, above all a model without its data.

    Args:
        fixed_data: whether observations that the model draws anew at each run are refused, too.
    """
    if not isinstance(problem, Problem):
        got = getattr(problem, "__name__", None) or type(problem).__name__
        raise OptionError(
            f"{engine} expects a Problem, got {got}. Bind the model to its data first: "
            "Problem(model, data)."
        )
    trains = (
        engine in TRAIN_PARAMS and problem.free_params
    )  # maximum likelihood, as autoencoders have
    if not problem.latents and engine not in NEED_NO_LATENTS and not trains:
        raise NotSupportedError(
            f"model '{problem.name}' has no latent sites, so there is nothing for {engine} to infer: "
            "its log evidence is the density of its data, exact(problem).log_evidence."
        )
    if fixed_data:
        problem.refuse_moving_data(engine)
    problem.try_enumeration()
