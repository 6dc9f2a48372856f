"""Posterior means beside lme4's estimates on its own data (output kept with the data; not shipped)."""

import re
from pathlib import Path

import pytest
import torch

from vitools import cavi, from_formula

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "lme4"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="lme4's data are not here")


def estimates(name):
    """lme4's coefficients and their standard errors, and standard deviations by group and term."""
    text = (DATA / "lme4_fits.txt").read_text("utf-8")
    section = text.split(f"## {name}:")[1].split("##")[0]
    lines = section.splitlines()
    table = next(i for i, line in enumerate(lines) if "sdcor" in line)

    def named(part):
        names = [n for line in part[::2] for n in line.split()]
        return dict(
            zip(names, [float(v) for line in part[1::2] for v in line.split()], strict=True)
        )

    start = next(i for i, line in enumerate(lines) if line.startswith("seconds")) + 1
    scales, stop = {}, table + 1
    for line in lines[table + 1 :]:
        found = re.match(r"^\d+\s+(\S+)\s+(\S+)\s+(\S+)\s+([\d.]+)\s*$", line)
        if not found:
            break
        stop += 1
        scales[found[1], found[2], found[3]] = float(found[4])
    errors = [
        line
        for line in lines[stop:]
        if line.strip() and not line.startswith(("Warn", "  Model", "In"))
    ]
    errors = [line for line in errors if "checkConv" not in line]
    return named(lines[start:table]), named(errors), scales


def check(fit, name, terms, off, wider):
    """Coefficients within ``off`` standard errors, errors within a factor ``wider``."""
    means, errors, scales = estimates(name)
    for theirs, (site, index, sign) in terms.items():
        mean, sd = fit.mean()[site].reshape(-1)[index], fit.sd()[site].reshape(-1)[index]
        assert abs(sign * float(mean) - means[theirs]) < off * errors[theirs], theirs
        assert 1 / wider < float(sd) / errors[theirs] < wider, theirs
    return scales


def test_sleepstudy():
    """Effects correlated: scales are means of skewed posteriors beside maxima of the likelihood."""
    problem = from_formula("Reaction ~ Days + (Days | Subject)", DATA / "sleepstudy.csv")
    fit = cavi(problem, nested=())
    terms = {"(Intercept)": ("Intercept", 0, 1), "Days": ("Days", 0, 1)}
    scales = check(fit, "sleepstudy", terms, off=0.02, wider=1.1)
    residual = scales["Residual", "<NA>", "<NA>"]
    assert abs(float(fit.mean()["sigma"]) / residual - 1) < 0.02
    derived = problem.predictive(fit.sample(4000, seed=1), seed=2)
    sd, corr = (derived[f"1 + Days|Subject_{n}"] for n in ("sigma", "corr"))
    theirs = torch.tensor(
        [scales["Subject", "(Intercept)", "<NA>"], scales["Subject", "Days", "<NA>"]]
    )
    assert bool(((sd.mean(0) / theirs - 1).abs() < 0.25).all())
    assert abs(float(corr[:, 0, 1].mean()) - scales["Subject", "(Intercept)", "Days"]) < 0.1


def test_cbpp():
    problem = from_formula(
        "p(incidence, size) ~ C(period) + (1 | herd)", DATA / "cbpp.csv", "binomial"
    )
    fit = cavi(problem, nested=())
    terms = {"(Intercept)": ("Intercept", 0, 1)}
    terms |= {f"period{i + 2}": ("C(period)", i, 1) for i in range(3)}
    scales = check(fit, "cbpp", terms, off=0.15, wider=1.1)
    assert 1 < float(fit.mean()["1|herd_sigma"]) / scales["herd", "(Intercept)", "<NA>"] < 1.3


@pytest.mark.slow
def test_penicillin_whose_few_samples_leave_their_scale_wide():
    """Six samples: the posterior of their scale, nested by default, has a mean well above the maximum."""
    problem = from_formula("diameter ~ 1 + (1 | plate) + (1 | sample)", DATA / "penicillin.csv")
    fit = cavi(problem)
    terms = {"(Intercept)": ("Intercept", 0, 1)}
    scales = check(fit, "penicillin", terms, off=0.02, wider=1.35)
    mean = fit.mean()
    assert abs(float(mean["sigma"]) / scales["Residual", "<NA>", "<NA>"] - 1) < 0.02
    assert 1 < float(mean["1|plate_sigma"]) / scales["plate", "(Intercept)", "<NA>"] < 1.1
    assert 1 < float(mean["1|sample_sigma"]) / scales["sample", "(Intercept)", "<NA>"] < 1.4


@pytest.mark.slow
def test_verbagg():
    problem = from_formula(
        "r2 ~ Anger + Gender + btype + situ + T(mode, ref='want') + (1 | id) + (1 | item)",
        DATA / "verbagg.csv",
        "bernoulli",
    )
    fit = cavi(problem)
    mode = "T(mode, ref='want')"
    terms = {
        "(Intercept)": ("Intercept", 0, 1),
        "Anger": ("Anger", 0, 1),
        "GenderM": ("Gender", 0, 1),
        "btypescold": ("btype", 0, 1),
        "btypeshout": ("btype", 1, 1),
        "situself": ("situ", 0, 1),
        "modedo": (mode, 0, 1),
    }
    scales = check(fit, "verbagg", terms, off=0.1, wider=1.2)
    mean = fit.mean()
    assert abs(float(mean["1|id_sigma"]) / scales["id", "(Intercept)", "<NA>"] - 1) < 0.03
    assert 1 < float(mean["1|item_sigma"]) / scales["item", "(Intercept)", "<NA>"] < 1.35
