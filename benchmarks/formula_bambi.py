"""Mixed models by formula: the whole posterior by ``cavi`` beside Bambi's draws.

    OMP_NUM_THREADS=1 python benchmarks/formula_bambi.py DATA [--bambi PYTHON] [--only NAME …]

``DATA`` is a folder with lme4's data sets as csv files (sleepstudy, cbpp, verbagg). ``PYTHON`` is the
interpreter of an environment that has Bambi, which needs not be this one; without it only our side is run. Both
sides get the same formula (Bambi's (x | g) is uncorrelated, so ours is (x || g) there) and, by name, the same
priors: ours, so that estimates differ by the methods alone. Bambi runs PyMC's sampler with its defaults but two
chains on one core, after a first fit that compiles; seconds are processor seconds of the fit without reading
the data, on a machine that others may use. ``difference`` is that of posterior means in units of Bambi's
posterior standard deviations, ``sd ratio`` ours over its. ``lines`` are those a user writes, imports apart.
Kept in ``results/formula_bambi.json``.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyro.distributions as dist

from vitools import cavi, from_formula

RESULTS = Path(__file__).parent / "results" / "formula_bambi.json"

CASES: dict[str, dict[str, Any]] = {
    "sleepstudy": {
        "formula": "Reaction ~ Days + (Days || Subject)",
        "theirs": "Reaction ~ Days + (Days | Subject)",
        "family": "gaussian",
        "words": ["Subject"],
        "common": ["Intercept", "Days"],
        "scales": ["1|Subject", "Days|Subject"],
        "rest": {"sigma": 140.0},
    },
    "cbpp": {
        "formula": "p(incidence, size) ~ period + (1 | herd)",
        "theirs": "p(incidence, size) ~ period + (1 | herd)",
        "family": "binomial",
        "words": ["herd", "period"],
        "common": ["Intercept", "period"],
        "scales": ["1|herd"],
        "rest": {},
    },
    "verbagg": {
        "formula": "correct ~ Anger + Gender + btype + situ + mode + (1 | id) + (1 | item)",
        "theirs": "correct ~ Anger + Gender + btype + situ + mode + (1 | id) + (1 | item)",
        "family": "bernoulli",
        "words": ["id"],
        "common": ["Intercept", "Anger", "Gender", "btype", "situ", "mode"],
        "scales": ["1|id", "1|item"],
        "rest": {},
    },
}
"""Priors are simple ones that both sides can state: the same for each coefficient and each scale."""

LINES = {
    "ours": 'fit = cavi(from_formula("y ~ x + (1 | g)", data))\nprint(fit)',
    "bambi": 'model = bmb.Model("y ~ x + (1 | g)", data)\nidata = model.fit()\nprint(az.summary(idata))',
}


def table(folder: Path, name: str) -> pd.DataFrame:
    """The rows; groups as words, answers as 0 and 1."""
    data = pd.read_csv(folder / f"{name}.csv")
    for column in CASES[name]["words"]:
        data[column] = data[column].astype(str)
    if name == "verbagg":
        data["correct"] = (data.r2 == "Y").astype(int)
    return data


def widths(name: str) -> tuple[float, float]:
    """Prior standard deviation of coefficients and of scales."""
    return (300.0, 140.0) if name == "sleepstudy" else (5.0, 2.5)


def ours(folder: Path, name: str) -> dict[str, Any]:
    """Means and standard deviations by site, processor seconds."""
    case, (wide, scale) = CASES[name], widths(name)
    priors: dict[str, Any] = {site: dist.Normal(0.0, wide) for site in case["common"]}
    priors |= {f"{site}_sigma": dist.HalfNormal(scale) for site in case["scales"]}
    priors |= {site: dist.HalfNormal(s) for site, s in case["rest"].items()}
    problem = from_formula(case["formula"], table(folder, name), case["family"], priors=priors)
    start, wall = time.process_time(), time.perf_counter()
    fit = cavi(problem)
    found: dict[str, Any] = {
        "processor_seconds": time.process_time() - start,
        "wall_seconds": time.perf_counter() - wall,
        "detail": fit.detail,
    }
    sites = [*case["common"], *(f"{site}_sigma" for site in case["scales"]), *case["rest"]]
    found["sites"] = {
        site: (fit.mean()[site].reshape(-1).tolist(), fit.sd()[site].reshape(-1).tolist())
        for site in sites
    }
    return found


THEIRS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import bambi as bmb, pandas as pd, arviz as az
name, case, (wide, scale), path, out = json.loads(sys.argv[1])
data = pd.read_csv(path, dtype={w: str for w in case["words"]})
priors = {site: bmb.Prior("Normal", mu=0, sigma=wide) for site in case["common"]}
for site in case["scales"]:
    priors[site] = bmb.Prior("Normal", mu=0, sigma=bmb.Prior("HalfNormal", sigma=scale))
for site, s in case["rest"].items():
    priors[site] = bmb.Prior("HalfNormal", sigma=s)
def fit(draws, tune):
    # not centred, so that the prior of the intercept is of the intercept
    model = bmb.Model(case["theirs"], data, family=case["family"], priors=priors, center_predictors=False)
    start, wall = time.process_time(), time.perf_counter()
    idata = model.fit(draws=draws, tune=tune, chains=2, cores=1, progressbar=False, random_seed=1)
    return idata, time.process_time() - start, time.perf_counter() - wall
fit(5, 5)
idata, seconds, wall = fit(1000, 1000)
posterior = idata.posterior
sites = [*case["common"], *(f"{s}_sigma" for s in case["scales"]), *case["rest"]]
found = {s: (posterior[s].mean(("chain", "draw")).values.reshape(-1).tolist(),
             posterior[s].std(("chain", "draw")).values.reshape(-1).tolist()) for s in sites}
ess = az.ess(idata, var_names=sites)
least = min(float(ess[s].min()) for s in sites)
json.dump({"processor_seconds": seconds, "wall_seconds": wall, "sites": found, "least_ess": least,
           "version": bmb.__version__}, open(out, "w"))
"""


def bambi(python: str, folder: Path, name: str) -> dict[str, Any]:
    """The same by Bambi, in its own environment."""
    with tempfile.TemporaryDirectory() as scratch:
        path, out = Path(scratch, "data.csv"), Path(scratch, "out.json")
        table(folder, name).to_csv(path, index=False)
        argument = json.dumps([name, CASES[name], widths(name), str(path), str(out)])
        subprocess.run([python, "-c", THEIRS, argument], check=True, cwd=scratch)
        return json.loads(out.read_text("utf-8"))


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Differences of means in standard deviations, ratios of these, by site the largest."""
    found = {}
    for site, (means, sds) in one["sites"].items():
        theirs = other["sites"][site]
        pairs = list(zip(means, sds, *theirs, strict=True))
        found[site] = {
            "difference": max((abs(m - t) / s for m, _, t, s in pairs)),
            "sd_ratio": min((sd / s for _, sd, _, s in pairs), key=lambda r: -abs(r - 1)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bambi", metavar="PYTHON")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    cavi(from_formula("Reaction ~ Days", table(given.data, "sleepstudy")))  # loads torch's parts
    for name in given.only:
        row: dict[str, Any] = {"ours": ours(given.data, name)}
        print(f"{name}: ours {row['ours']['processor_seconds']:.1f} s, {row['ours']['detail']}")
        if given.bambi:
            row["bambi"] = bambi(given.bambi, given.data, name)
            row["compared"] = compared(row["ours"], row["bambi"])
            seconds, ess = row["bambi"]["processor_seconds"], row["bambi"]["least_ess"]
            print(f"  Bambi {seconds:.1f} s, least effective sample size {ess:.0f}")
            for site, found in row["compared"].items():
                print(
                    f"  {site}: {found['difference']:.2f} sd apart, sd ratio {found['sd_ratio']:.2f}"
                )
        kept[name] = row
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    lines = {side: len(text.splitlines()) for side, text in LINES.items()}
    print(f"lines: ours {lines['ours']}, Bambi {lines['bambi']}")


if __name__ == "__main__":
    main()
