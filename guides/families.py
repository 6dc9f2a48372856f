"""The table of variational families: one line each."""

from vitools.guides.dirichlet import BetaFamily, DirichletFamily
from vitools.guides.family import Family
from vitools.guides.kumaraswamy import KumaraswamyFamily, StickKumaraswamyFamily
from vitools.guides.logistic_normal import LogisticNormalFamily
from vitools.guides.mv_kumaraswamy import MVKumaraswamyFamily
from vitools.guides.normal import NormalFamily

FAMILIES: dict[str, type[Family]] = {
    "normal": NormalFamily,
    "kumaraswamy": KumaraswamyFamily,
    "stick_kumaraswamy": StickKumaraswamyFamily,
    "mv_kumaraswamy": MVKumaraswamyFamily,
    "logistic_normal": LogisticNormalFamily,
    "dirichlet": DirichletFamily,
    "beta": BetaFamily,
}
