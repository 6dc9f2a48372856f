"""The table of variational families: one line each."""

from vitools.guides.family import GuideFamily
from vitools.guides.mean_field.dirichlet import BetaFamily, DirichletFamily
from vitools.guides.mean_field.kumaraswamy import KumaraswamyFamily, StickKumaraswamyFamily
from vitools.guides.mean_field.logistic_normal import LogisticNormalFamily
from vitools.guides.mean_field.mv_kumaraswamy import MVKumaraswamyFamily
from vitools.guides.mean_field.normal import NormalFamily

FAMILIES: dict[str, type[GuideFamily]] = {
    "normal": NormalFamily,
    "kumaraswamy": KumaraswamyFamily,
    "stick_kumaraswamy": StickKumaraswamyFamily,
    "mv_kumaraswamy": MVKumaraswamyFamily,
    "logistic_normal": LogisticNormalFamily,
    "dirichlet": DirichletFamily,
    "beta": BetaFamily,
}
