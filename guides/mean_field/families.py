"""The table of variational families: one line each."""

from vitools.guides.family import GuideFamily
from vitools.guides.mean_field.dirichlet import BetaGuideFamily, DirichletGuideFamily
from vitools.guides.mean_field.kumaraswamy import (
    KumaraswamyGuideFamily,
    StickKumaraswamyGuideFamily,
)
from vitools.guides.mean_field.logistic_normal import LogisticNormalGuideFamily
from vitools.guides.mean_field.mv_kumaraswamy import MVKumaraswamyGuideFamily
from vitools.guides.mean_field.normal import NormalGuideFamily

FAMILIES: dict[str, type[GuideFamily]] = {
    "normal": NormalGuideFamily,
    "kumaraswamy": KumaraswamyGuideFamily,
    "stick_kumaraswamy": StickKumaraswamyGuideFamily,
    "mv_kumaraswamy": MVKumaraswamyGuideFamily,
    "logistic_normal": LogisticNormalGuideFamily,
    "dirichlet": DirichletGuideFamily,
    "beta": BetaGuideFamily,
}
"""The families of one site's q, by the names that ``AutoMeanField(model, families=…)`` takes."""
