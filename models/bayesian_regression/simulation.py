"""Data for the regressions: simulated with their truth, or the diabetes set that ships."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.data import load_diabetes
from vitools.errors import OptionError
from vitools.models.bayesian_regression.checks import check_count, check_positive

LIKELIHOODS = ("normal", "bernoulli", "poisson")


@dataclass(frozen=True)
class RegressionData:
    """Features, what they predict, and the truth where it is known.

    Attributes:
        features: X, float64, shape [N, D].
        target: y, float64, shape [N] (zeros and ones for bernoulli, counts for poisson).
        feature_names: D names.
        truth: the latents by site name, in the shape of their site; empty for real data.
    """

    features: Tensor
    target: Tensor
    feature_names: tuple[str, ...]
    truth: dict[str, Tensor]


def simulate(
    num_rows: int = 200,
    num_features: int = 3,
    seed: int = 0,
    *,
    likelihood: str = "normal",
    noise_scale: float = 1.0,
    correlation: float = 0.0,
    num_relevant: int | None = None,
) -> RegressionData:
    """Draw a data set; torch's global random state is left as it was.

    Features are standard normal, with correlation ρ^|d-e| between columns d and e. Weights are
    normal with standard deviation 1 (normal), 2/√D (bernoulli) or ½/√D (poisson), so that neither
    probabilities nor rates become extreme however many features there are; the intercept has
    standard deviation ½.

    Args:
        num_rows: N.
        num_features: D.
        seed: equal seeds give equal data.
        likelihood: ``"normal"`` for :func:`model` and :func:`ard`, ``"bernoulli"`` for
            :func:`logistic`, ``"poisson"`` for :func:`poisson`.
        noise_scale: τ^-½ of the normal likelihood.
        correlation: ρ, between -1 and 1.
        num_relevant: only the first so many weights differ from 0; all when not given.

    Example:
        >>> data = simulate(num_rows=100, num_features=2, seed=1)
        >>> data.features.shape, data.target.shape, sorted(data.truth)
        (torch.Size([100, 2]), torch.Size([100]), ['intercept', 'precision', 'weights'])
    """
    check_count(num_rows=num_rows, num_features=num_features)
    check_positive(noise_scale=noise_scale)
    if likelihood not in LIKELIHOODS:
        raise OptionError(
            f"likelihood: expected one of {', '.join(LIKELIHOODS)}, got {likelihood!r}."
        )
    if not -1 < correlation < 1:
        raise OptionError(f"correlation: expected a number between -1 and 1, got {correlation!r}.")
    relevant = num_features if num_relevant is None else num_relevant
    if not 0 <= relevant <= num_features:
        raise OptionError(f"num_relevant: expected 0 to {num_features}, got {num_relevant!r}.")

    generator = torch.Generator().manual_seed(seed)

    def standard_normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    features = standard_normal(num_rows, num_features)
    for d in range(1, num_features):
        features[:, d] = correlation * features[:, d - 1] + (
            (1 - correlation**2) ** 0.5 * features[:, d]
        )
    spread = {
        "normal": 1.0,
        "bernoulli": 2 * num_features**-0.5,
        "poisson": 0.5 * num_features**-0.5,
    }
    weights = spread[likelihood] * standard_normal(num_features)
    weights[relevant:] = 0.0
    intercept = 0.5 * standard_normal()
    truth = {"weights": weights, "intercept": intercept}
    predictor = features @ weights + intercept
    if likelihood == "normal":
        truth["precision"] = torch.tensor(noise_scale**-2, dtype=torch.float64)
        target = predictor + noise_scale * standard_normal(num_rows)
    elif likelihood == "bernoulli":
        target = torch.bernoulli(predictor.sigmoid(), generator=generator)
    else:
        target = torch.poisson(predictor.exp(), generator=generator)
    names = tuple(f"x{d + 1}" for d in range(num_features))
    return RegressionData(features, target, names, truth)


def load() -> RegressionData:
    """The diabetes data (Efron et al. 2004), features and target standardised.

    Each column of the features, and the disease progression, has mean 0 and standard deviation 1
    (divisor N), so weights are in standard deviations of progression (77.0 of its units) per
    standard deviation of the feature, and one prior scale fits all. Unscaled:
    :func:`vitools.data.load_diabetes`.

    Example:
        >>> data = load()
        >>> data.features.shape, data.feature_names[2]
        (torch.Size([442, 10]), 'bmi')
    """
    diabetes = load_diabetes()

    def standardised(values: Tensor) -> Tensor:
        return (values - values.mean(0)) / values.std(0, correction=0)

    return RegressionData(
        features=standardised(torch.from_numpy(diabetes.features)),
        target=standardised(torch.from_numpy(diabetes.progression)),
        feature_names=diabetes.feature_names,
        truth={},
    )
