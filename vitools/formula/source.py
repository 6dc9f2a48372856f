"""The Pyro model of a formula, written out as Python: the text is the model, which is compiled from it.

    eta = Intercept + Σ columns · coefficients + Σ columns · effects[group] + offset
    Intercept ~ Normal(c - Σ means · coefficients, (2.5 s)²)     a row at the means of all columns has level c

is the same prior as that of a level of centred columns, while the intercept is the one of the columns as they
are: coefficients have the scale of the data, and all of them are one Gaussian block.

Correlated effects u_g ~ Normal(0, Σ) have Huang and Wand's (2013) prior, all of whose updates are closed:

    b_d ~ Gamma(½, 1/A_d²),   Σ⁻¹ ~ Wishart(D + 1, (4 diag b)⁻¹)

under which standard deviations are half-t with two degrees of freedom and scales A_d, and any correlation is
alike likely. Where the standard deviations get a prior of the user's, the correlations' is LKJ's with
concentration 1, the same.

Reference: A. Huang, M. Wand, "Simple marginally noninformative prior distributions for covariance matrices",
Bayesian Analysis 8, 2013.
"""

import json
import textwrap
from collections.abc import Mapping

from vitools.formula.families import FAMILIES, ResponseFamily
from vitools.formula.plan import (
    Coefficients,
    Effects,
    FormulaPlan,
    Names,
    identifier,
    level_of_columns,
)
from vitools.formula.priors import Prior
from vitools.formula.response import Observed

HEAD = """import pyro
import pyro.distributions as dist
import torch


"""


def write(
    text: str,
    family_name: str,
    link: str,
    made: FormulaPlan,
    observed: Observed,
    priors: Mapping[str, Prior],
) -> str:
    """The module: imports and the function ``model``."""
    family = FAMILIES[family_name]
    writer = _Writer(made, observed, priors)
    lines = writer.categorical(family) if family.values == "levels" else writer.single(family, link)
    described = f'"""{text}: {family_name}, link {link}."""'.replace("\\", "\\\\")
    signature = f"def model({', '.join(arguments(made, observed))}):"
    head = textwrap.fill(signature, 96, subsequent_indent="          ", break_long_words=False)
    made_once = [
        f"{variable} = pyro.plate({_quoted(name)}, {size})"
        for name, (variable, size) in writer.plates.items()
    ]
    lines = [described, "number = y.new_tensor", *made_once, *lines]
    body = textwrap.indent("\n".join(lines), "    ")
    return f"{HEAD}{head}\n{body}\n"


def arguments(made: FormulaPlan, observed: Observed) -> list[str]:
    """What the model takes, in order."""
    found = ["y"]
    found += [n for n in ("trials", "weights", "precisions") if getattr(observed, n) is not None]
    found += [own.columns for own in made.coefficients]
    found += ["offset"] if made.has_offset else []
    for own in made.effects:
        found += [own.columns] if own.columns else []
        found += [n for n in (own.index, own.count) if n not in found]
    return found


def _plates(made: FormulaPlan) -> dict[str, tuple[str, int | str]]:
    """Variable and size of each plate by name."""
    sizes: dict[str, int | str] = {}
    for own in made.coefficients:
        sizes |= {own.plate: len(own.labels)} if own.plate else {}
    for effects in made.effects:
        sizes[effects.plate] = effects.count
        sizes |= {effects.column_plate: effects.size} if effects.column_plate else {}
    variables = Names()
    return {
        name: (variables.new(f"plate_{identifier(name)}"), size) for name, size in sizes.items()
    }


class _Writer:
    def __init__(self, made: FormulaPlan, observed: Observed, priors: Mapping[str, Prior]) -> None:
        self.plan, self.observed, self.priors = made, observed, priors
        self.plates = _plates(made)

    def single(self, family: ResponseFamily, link: str) -> list[str]:
        """A model of one predictor."""
        lines = self._predictor("", "eta", is_ordered=family.values == "ordered")
        for name in family.parameters:
            lines.append(f'{name} = pyro.sample("{name}", {self.priors[name].source})')
        if family.values == "ordered":
            lines += self._thresholds()
        outcome = family.links[link]
        if self.observed.precisions is not None:
            outcome = outcome.replace("sigma)", "sigma * precisions.rsqrt())")
        return [*lines, *self._rows(outcome)]

    def categorical(self, family: ResponseFamily) -> list[str]:
        """A predictor for each level but the first."""
        lines, etas = [], []
        for number, level in enumerate(self.observed.levels[1:], start=1):
            etas.append(f"eta_{number}")
            lines += [f"# {_quoted(level)[1:-1]}", *self._predictor(f"[{level}]", etas[-1])]
        lines.append(f"logits = torch.stack([torch.zeros_like(eta_1), {', '.join(etas)}], -1)")
        return [*lines, *self._rows(next(iter(family.links.values())))]

    def _rows(self, outcome: str) -> list[str]:
        plate = f'pyro.plate("{self.plan.row_plate}", len(y))'
        if self.observed.weights is not None:
            plate += ", pyro.poutine.scale(scale=weights)"
        return [
            f"with {plate}:",
            f"    pyro.sample({_quoted(self.observed.name)}, {outcome}, obs=y)",
        ]

    # ---- a predictor -----------------------------------------------------------------------

    def _predictor(self, suffix: str, target: str, is_ordered: bool = False) -> list[str]:
        lines, summands = [], []
        for own in self.plan.coefficients:
            lines += self._coefficients(own, suffix)
            columns = (
                f"({own.columns} - number({_listed(own.means)}))" if is_ordered else own.columns
            )
            summands.append(f"{columns} {'*' if own.plate is None else '@'} {own.variable}")
        if self.plan.has_intercept and not is_ordered:
            prior = self.priors["Intercept"]
            if prior.shift:
                lines += _sum(prior.shift, level_of_columns(self.plan))
            lines.append(
                f"intercept = pyro.sample({_quoted('Intercept' + suffix)}, {prior.source})"
            )
            summands.insert(0, "intercept")
        for effects in self.plan.effects:
            lines += self._effects(effects, suffix)
            own_effects = f"{effects.variable}[{effects.index}]"
            if effects.size > 1:
                own_effects = f"({effects.columns} * {own_effects}).sum(-1)"
            elif effects.columns:
                own_effects = f"{effects.columns} * {own_effects}"
            summands.append(own_effects)
        summands += ["offset"] if self.plan.has_offset else []
        if not summands:
            summands = ["torch.zeros_like(y)"]
        return [*lines, *_sum(target, summands)]

    def _coefficients(self, own: Coefficients, suffix: str) -> list[str]:
        sample = f"{own.variable} = pyro.sample({_quoted(own.name + suffix)}, {self.priors[own.name].source})"
        if own.plate is None:
            return [sample]
        return [f"with {self.plates[own.plate][0]}:", f"    {sample}"]

    def _effects(self, own: Effects, suffix: str) -> list[str]:
        name, variable = own.name + suffix, own.variable
        plate = f"with {self.plates[own.plate][0]}:"
        prior = self.priors[f"{own.name}_sigma"]
        stem = own.variable.removeprefix("u_")
        sd = f"sd_{stem}"
        if own.size == 1:
            return [
                f"{sd} = pyro.sample({_quoted(name + '_sigma')}, {prior.source})",
                plate,
                f"    {variable} = pyro.sample({_quoted(name)}, dist.Normal(number(0.0), {sd}))",
            ]
        columns = f"with {self.plates[str(own.column_plate)][0]}:"
        if prior.distribution != "half-t":
            root = f"root_{stem}"
            return [
                columns,
                f"    {sd} = pyro.sample({_quoted(name + '_sigma')}, {prior.source})",
                f"{root} = pyro.sample({_quoted(name + '_cholesky')}, dist.LKJCholesky({own.size}, number(1.0)))",
                plate,
                f"    {variable} = pyro.sample({_quoted(name)}, dist.MultivariateNormal(",
                f"        y.new_zeros({own.size}), scale_tril={sd}[:, None] * {root}))",
            ]
        rate, precision = f"rate_{stem}", f"precision_{stem}"
        scale = prior.parameters["scale"]
        squares = f"number({list(scale) if isinstance(scale, tuple) else [scale] * own.size}) ** -2"
        return [
            columns,
            f"    {rate} = pyro.sample({_quoted(name + '_rate')}, dist.Gamma(number(0.5), {squares}))",
            f"{precision} = pyro.sample({_quoted(name + '_precision')}, dist.Wishart(",
            f"    number({own.size + 1.0}), precision_matrix=torch.diag_embed(4 * {rate})))",
            f"covariance = torch.linalg.inv_ex({precision})[0]",
            f"{sd} = covariance.diagonal(dim1=-2, dim2=-1).sqrt()",
            columns,
            f"    pyro.deterministic({_quoted(name + '_sigma')}, {sd})",
            f"pyro.deterministic({_quoted(name + '_corr')}, covariance / ({sd}[..., :, None] * {sd}[..., None, :]))",
            plate,
            f"    {variable} = pyro.sample({_quoted(name)}, dist.MultivariateNormal(",
            f"        y.new_zeros({own.size}), precision_matrix={precision}))",
        ]

    # ---- ordered levels ----------------------------------------------------------------------

    def _thresholds(self) -> list[str]:
        """Of a row at the means of all columns, and, computed from them, of one at zero."""
        count = len(self.observed.levels) - 1
        first = [-1.5] + [0.0] * (count - 1)
        widths = [2.5] + [1.0] * (count - 1)
        shifts = [
            f"(number({_listed(own.means)}) * {own.variable}).sum()"
            for own in self.plan.coefficients
        ]
        return [
            'centred_threshold = pyro.sample("centred_threshold", dist.TransformedDistribution(',
            f"    dist.Normal(number({first}), number({widths})), dist.transforms.OrderedTransform()))",
            f'pyro.deterministic("threshold", {" + ".join(["centred_threshold", *shifts])})',
        ]


def _sum(target: str, summands: list[str]) -> list[str]:
    joined = f"{target} = {' + '.join(summands)}"
    if len(joined) < 92:
        return [joined]
    return [f"{target} = (", *(f"    {'+ ' if i else ''}{s}" for i, s in enumerate(summands)), ")"]


def _listed(values: tuple[float, ...]) -> str:
    return repr(values[0]) if len(values) == 1 else repr(list(values))


def _quoted(text: str) -> str:
    """A literal between double quotes, on one line whatever the text holds: words of data are no code."""
    return json.dumps(text, ensure_ascii=False)
