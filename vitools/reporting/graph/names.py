"""Site names as a textbook would set them: pi1 → π₁, sigma_alpha → σ_α, log_tau → log τ."""

import re

__all__ = ["math_name", "numbered"]

_LETTERS = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon
phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
"""
_GREEK = frozenset(_LETTERS.split())
_FUNCTIONS = frozenset(("log", "exp", "logit", "sqrt"))


def math_name(name: str) -> str:
    r"""A name in TeX's mathematics, or as it stands where it is no identifier.

    A symbol takes all that follows as its index; an ordinary word only the number at its end.

    >>> print(math_name("pi1"), math_name("sigma_alpha"), math_name("log_tau"))
    $\pi_{1}$ $\sigma_{\alpha}$ $\mathrm{log}\,\tau$
    >>> print(math_name("rolls"), math_name("mu_region"), math_name("batting_average2"))
    $\mathit{rolls}$ $\mu_{\mathrm{region}}$ $\mathit{batting\ average}_{2}$
    """
    words = re.findall(r"[A-Za-z]+|\d+", name)
    if not words or not re.fullmatch(r"[A-Za-z0-9_.,\[\]]+", name):
        return name.replace("$", r"\$")
    function = words[0] in _FUNCTIONS and len(words) > 1
    prefix = rf"\mathrm{{{words.pop(0)}}}\," if function else ""
    if _symbol(words[0]).startswith(r"\mathrm"):
        split = max(1, len(words) - words[-1].isdigit())
        base = r"\mathit{" + r"\ ".join(words[:split]) + "}"
    else:
        split, base = 1, _symbol(words[0])
    index = ",".join(_symbol(word) for word in words[split:])
    return f"${prefix}{base}_{{{index}}}$" if index else f"${prefix}{base}$"


def _symbol(word: str) -> str:
    if word in _GREEK:
        return rf"\{'varepsilon' if word == 'epsilon' else word}"
    return word if len(word) == 1 or word.isdigit() else rf"\mathrm{{{word}}}"


def numbered(name: str) -> tuple[str, int] | None:
    """The stem and the number of a name such as ``z_12``, else nothing.

    >>> numbered("z_12"), numbered("rolls")
    (('z_', 12), None)
    """
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return (match[1], int(match[2])) if match else None
