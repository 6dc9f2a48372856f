"""Mixed models: the whole posterior by elimination beside lme4's point estimates.

    OMP_NUM_THREADS=1 python benchmarks/mixed_models.py DATA [--only NAME …] [--lme4]

``DATA`` is a folder with lme4's data sets as csv files (sleepstudy, penicillin, cbpp, verbagg, insteval).
``--lme4`` runs lme4 in the same session (``Rscript`` with the package, Debian's r-cran-lme4), one model
after the other on the same core; without it only our side is run. Seconds are of whole calls from the
built ``Problem`` (``nested=()``), after a small fit that loads what torch loads on first use; processor
seconds do not count what other work on the machine takes. ``difference`` is that of the estimates in
units of lme4's standard error (coefficients) and relative (standard deviations). Kept in
``results/mixed_models.json``.
"""

import argparse
import csv
import json
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools import Problem, cavi

RESULTS = Path(__file__).parent / "results" / "mixed_models.json"


@dataclass
class Case:
    """A model, the R formula that is the same, and what of the two to compare."""

    problem: Problem
    frame: dict[str, Any]
    formula: str
    binomial: bool
    coefficients: dict[str, tuple[str, int | None]]
    """R's name of a coefficient: site and element."""
    scales: dict[str, str]
    """R's name of a group: the site of its standard deviation."""


def codes(values: list[str]) -> tuple[Tensor, int]:
    known = {value: i for i, value in enumerate(sorted(set(values)))}
    return torch.tensor([known[v] for v in values]), len(known)


def numbers(values: list[str]) -> Tensor:
    return torch.tensor([float(v) for v in values])


def dummies(values: list[str], *levels: str) -> list[Tensor]:
    return [torch.tensor([float(v == level) for v in values]) for level in levels]


def effects(name: str, size: int, scale: Tensor) -> Tensor:
    with pyro.plate(f"{name}s", size):
        return pyro.sample(name, dist.Normal(torch.zeros(()), scale))


def half_normal(name: str, scale: float) -> Tensor:
    return pyro.sample(name, dist.HalfNormal(torch.tensor(scale)))


def coefficients(size: int, scale: float) -> Tensor:
    return pyro.sample("b", dist.Normal(torch.zeros(size), scale).to_event(1))


def sleepstudy(d: dict[str, list[str]]) -> Case:
    subject, count = codes(d["Subject"])
    y, days = numbers(d["Reaction"]), numbers(d["Days"])

    def model(y: Tensor, days: Tensor, subject: Tensor) -> None:
        b = coefficients(2, 300.0)
        scale = torch.tensor([600.0, 40.0]).reciprocal()
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(3.0), torch.diag(scale)))
        sigma = half_normal("sigma", 100.0)
        with pyro.plate("subjects", count):
            u = pyro.sample(
                "u", dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)
            )
        with pyro.plate("rows", len(y)):
            mean = b[0] + b[1] * days + u[subject, 0] + u[subject, 1] * days
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    return Case(
        Problem(model, y, days, subject),
        d,
        "Reaction ~ Days + (Days|Subject)",
        False,
        {"(Intercept)": ("b", 0), "Days": ("b", 1)},
        {"Residual": "sigma"},
    )


def penicillin(d: dict[str, list[str]]) -> Case:
    (plate, plates), (sample, samples) = codes(d["plate"]), codes(d["sample"])
    y = numbers(d["diameter"])

    def model(y: Tensor, plate: Tensor, sample: Tensor) -> None:
        b = coefficients(1, 100.0)
        u = effects("u", plates, half_normal("by_plate", 5.0))
        v = effects("v", samples, half_normal("by_sample", 5.0))
        sigma = half_normal("sigma", 5.0)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(b[0] + u[plate] + v[sample], sigma), obs=y)

    return Case(
        Problem(model, y, plate, sample),
        d,
        "diameter ~ 1 + (1|plate) + (1|sample)",
        False,
        {"(Intercept)": ("b", 0)},
        {"plate": "by_plate", "sample": "by_sample", "Residual": "sigma"},
    )


def cbpp(d: dict[str, list[str]]) -> Case:
    herd, herds = codes(d["herd"])
    y, size = numbers(d["incidence"]), numbers(d["size"])
    x = torch.stack([torch.ones(len(y)), *dummies(d["period"], "2", "3", "4")], 1)

    def model(x: Tensor, y: Tensor, size: Tensor, herd: Tensor) -> None:
        b = coefficients(4, 10.0)
        u = effects("u", herds, half_normal("by_herd", 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Binomial(size, logits=x @ b + u[herd]), obs=y)

    names = ("(Intercept)", "period2", "period3", "period4")
    return Case(
        Problem(model, x, y, size, herd),
        d,
        "cbind(incidence, size - incidence) ~ factor(period) + (1|herd)",
        True,
        {name.replace("period", "factor(period)"): ("b", i) for i, name in enumerate(names)},
        {"herd": "by_herd"},
    )


def verbagg(d: dict[str, list[str]]) -> Case:
    (person, persons), (item, items) = codes(d["id"]), codes(d["item"])
    (y,) = dummies(d["r2"], "Y")
    columns = [
        torch.ones(len(y)),
        numbers(d["Anger"]),
        *dummies(d["Gender"], "M"),
        *dummies(d["btype"], "scold", "shout"),
        *dummies(d["situ"], "self"),
        *dummies(d["mode"], "do"),
    ]

    def model(x: Tensor, y: Tensor, person: Tensor, item: Tensor) -> None:
        b = coefficients(7, 10.0)
        u = effects("u", persons, half_normal("by_person", 2.0))
        v = effects("v", items, half_normal("by_item", 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=x @ b + u[person] + v[item]), obs=y)

    frame = dict(d)
    frame["y"] = [str(int(v)) for v in y]
    frame["mode"] = ["1" if v == "do" else "0" for v in d["mode"]]
    frame["situ"] = ["1" if v == "self" else "0" for v in d["situ"]]
    names = ("(Intercept)", "Anger", "GenderM", "btypescold", "btypeshout", "situ", "mode")
    return Case(
        Problem(model, torch.stack(columns, 1), y, person, item),
        frame,
        "y ~ Anger + Gender + btype + situ + mode + (1|id) + (1|item)",
        True,
        {name: ("b", i) for i, name in enumerate(names)},
        {"id": "by_person", "item": "by_item"},
    )


def insteval(d: dict[str, list[str]]) -> Case:
    read = {key: codes(d[key]) for key in ("s", "d", "dept")}
    y, service = numbers(d["y"]), numbers(d["service"])

    def model(y: Tensor, service: Tensor, s: Tensor, d: Tensor, dept: Tensor) -> None:
        b = coefficients(2, 10.0)
        at = {"s": s, "d": d, "dept": dept}
        mean = b[0] + b[1] * service
        for key, (_, count) in read.items():
            mean = mean + effects(f"u_{key}", count, half_normal(f"by_{key}", 1.0))[at[key]]
        sigma = half_normal("sigma", 5.0)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    return Case(
        Problem(model, y, service, *(index for index, _ in read.values())),
        d,
        "y ~ service + (1|s) + (1|d) + (1|dept)",
        False,
        {"(Intercept)": ("b", 0), "service": ("b", 1)},
        {"s": "by_s", "d": "by_d", "dept": "by_dept", "Residual": "sigma"},
    )


def simulated(rows: int, groups: int) -> Case:
    """Varying intercepts, logistic, five covariates."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 5, generator=generator)
    group = torch.randint(groups, (rows,), generator=generator)
    u = torch.randn(groups, generator=generator) * 0.7
    chance = torch.sigmoid(x @ torch.full((5,), 0.4) + u[group])
    y = (torch.rand(rows, generator=generator) < chance).double()

    def model(x: Tensor, y: Tensor, group: Tensor) -> None:
        b = coefficients(6, 5.0)
        u = effects("u", groups, half_normal("by_group", 1.0))
        with pyro.plate("rows", len(y)):
            logits = b[0] + x @ b[1:] + u[group]
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)

    names = [f"x{i}" for i in range(5)]
    frame = {"y": y.int().tolist(), "g": group.tolist()}
    frame |= {name: x[:, i].tolist() for i, name in enumerate(names)}
    return Case(
        Problem(model, x, y, group),
        frame,
        f"y ~ {' + '.join(names)} + (1|g)",
        True,
        {name: ("b", i) for i, name in enumerate(["(Intercept)", *names])},
        {"g": "by_group"},
    )


CASES: dict[str, Callable[..., Case]] = {
    "sleepstudy": sleepstudy,
    "penicillin": penicillin,
    "cbpp": cbpp,
    "verbagg": verbagg,
    "insteval": insteval,
}
SIMULATED = {"logistic_1e5": (100_000, 2000), "logistic_1e6": (1_000_000, 20_000)}
OURS_ALONE = ("logistic_1e6",)
"""lme4 takes more than ten minutes there."""

SCRIPT = """
suppressMessages(library(lme4))
d <- read.csv("{data}", stringsAsFactors = TRUE)
for (name in c({factors})) d[[name]] <- factor(d[[name]])
seconds <- system.time(suppressWarnings(fit <- {call}))
cat("seconds", seconds["elapsed"], "\\n")
cat("processor_seconds", seconds["user.self"] + seconds["sys.self"], "\\n")
s <- coef(summary(fit))
for (name in rownames(s)) cat("coefficient", name, s[name, 1], s[name, 2], "\\n")
v <- as.data.frame(VarCorr(fit))
v <- v[is.na(v$var2), ]
for (i in seq_len(nrow(v))) cat("scale", v$grp[i], v$sdcor[i], "\\n")
"""


def by_lme4(case: Case, folder: Path) -> dict[str, Any]:
    """Seconds, coefficients with standard errors, and standard deviations by lme4."""
    data = folder / "frame.csv"
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(case.frame)
        writer.writerows(zip(*case.frame.values(), strict=True))
    groups = [name for name in case.scales if name != "Residual"]
    call = f"lmer({case.formula}, d)"
    if case.binomial:
        call = f"glmer({case.formula}, d, family = binomial)"
    factors = ", ".join(f'"{name}"' for name in groups)
    script = SCRIPT.format(data=data, call=call, factors=factors)
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True)
    found: dict[str, Any] = {"coefficients": {}, "scales": {}}
    for line in done.stdout.splitlines():
        kind, *rest = line.split()
        if kind in ("seconds", "processor_seconds"):
            found[kind] = float(rest[0])
        elif kind == "coefficient":
            found["coefficients"][" ".join(rest[:-2])] = (float(rest[-2]), float(rest[-1]))
        elif kind == "scale":
            found["scales"][rest[0]] = float(rest[1])
    return found


def measured(case: Case) -> dict[str, Any]:
    began, processor = time.perf_counter(), time.process_time()
    fit = cavi(case.problem, nested=())
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    mean, sd = fit.mean(), fit.sd()
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "sweeps": len(fit.history),
        "bound": fit.bound,
        "coefficients": {
            name: (float(mean[site].reshape(-1)[i]), float(sd[site].reshape(-1)[i]))
            for name, (site, i) in case.coefficients.items()
        },
        "scales": {
            name: (float(mean[site]), float(sd[site])) for name, site in case.scales.items()
        },
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    return {
        "processor_ratio": ours["processor_seconds"] / theirs["processor_seconds"],
        "coefficients_difference": max(
            abs(ours["coefficients"][name][0] - value) / error
            for name, (value, error) in theirs["coefficients"].items()
        ),
        "scales_difference": max(
            abs(ours["scales"][name][0] / value - 1)
            for name, value in theirs["scales"].items()
            if name in ours["scales"]
        ),
    }


def rows_of(path: Path) -> dict[str, list[str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: [row[key] for row in rows] for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*CASES, *SIMULATED])
    parser.add_argument("--lme4", action="store_true")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    cavi(simulated(200, 10).problem)  # what torch loads on first use
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only or [*CASES, *SIMULATED]:
        if name in CASES:
            case = CASES[name](rows_of(options.data / f"{name}.csv"))
        else:
            case = simulated(*SIMULATED[name])
        result: dict[str, Any] = {"ours": measured(case), "python": platform.python_version()}
        if options.lme4 and name not in OURS_ALONE:
            with tempfile.TemporaryDirectory() as folder:
                result["lme4"] = by_lme4(case, Path(folder))
            result["compared"] = compared(result["ours"], result["lme4"])
        kept[name] = result
        print(name, json.dumps(result, indent=1), flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
