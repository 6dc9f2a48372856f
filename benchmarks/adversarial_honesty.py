"""Does the verdict hold on posteriors built to deceive?

    python benchmarks/adversarial_honesty.py [--out benchmarks/results] [--only NAME] [--seeds 1]
                                             [--judge-seeds 2] [--workers 2] [--fresh]

Every target of :mod:`adversarial_targets`, and of :mod:`adversarial_more` (written after the judge's
rules), is fitted five ways from several starts, and each fit is
judged alone, without a reference, by several seeds. An answer is bad if a mean is off by more than
0.2 sd or an sd by more than 25 % of the quadrature's. The ways are Gaussians, climbed here in
batch so that the hundreds of fits take minutes: at a mode (Laplace), by KL(q ‖ p) with a diagonal
and with a full covariance, of the posterior's own moments, and of these with sds of a quarter.

Counted are false trust (bad fits called ``trust``), withheld trust (good fits that are not, by the
grade they get), and how often two seeds of the judge disagree.
"""

import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import lru_cache, partial

import judged_tables
import torch
from adversarial_more import MORE
from adversarial_targets import TARGETS as FIRST
from adversarial_targets import Target
from resumable import Row
from torch import Tensor

from vitools import Problem
from vitools.diagnostics import judge
from vitools.posterior import GaussianPosterior, Status

MEAN_LIMIT, SD_LIMIT = 0.2, 0.25
WAYS = ("laplace", "mean field", "multivariate", "moments", "moments, sds / 4")
NAMES = ("target", "way", "seed")
STEPS, DRAWS = 600, 64
TARGETS = FIRST | {n: replace(target, kind=f"later: {target.kind}") for n, target in MORE.items()}


@lru_cache(maxsize=1)
def truth(name: str) -> tuple[Problem, Tensor, Tensor]:
    """The target as a problem, and its means and sds."""
    return Problem(TARGETS[name]), *TARGETS[name].moments()


def climbed(target: Target, way: str, seed: int, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Location and Cholesky factor of a Gaussian, from a start drawn as wide as the posterior."""
    generator = torch.Generator().manual_seed(seed)
    size = target.size
    location = (spread * torch.randn(size, generator=generator)).requires_grad_()
    log_scale = torch.full((size,), -1.0, requires_grad=True)
    lower = torch.zeros((size, size), requires_grad=True)
    half = torch.randn((DRAWS // 2, size), generator=generator)
    noise = torch.cat([half, -half]) if way != "laplace" else torch.zeros((1, size))
    moved = [location] if way == "laplace" else [location, log_scale, lower]
    optimiser = torch.optim.Adam(moved, lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.001 ** (1 / STEPS))
    for _ in range(STEPS):
        optimiser.zero_grad()
        scale = log_scale.exp().diag()
        if way == "multivariate":
            scale = scale + lower.tril(-1)
        bound = target.log_density(location + noise @ scale.mT).mean() + log_scale.sum()
        (-bound).backward()
        optimiser.step()
        schedule.step()
    location = location.detach()
    if way == "laplace":
        hessian = torch.autograd.functional.hessian(target.log_density, location)
        values, vectors = torch.linalg.eigh(-hessian)
        return location, torch.linalg.cholesky(
            vectors @ values.clamp(min=1e-6).reciprocal().diag() @ vectors.mT
        )
    scale = log_scale.detach().exp().diag()
    return location, scale + lower.detach().tril(-1) if way == "multivariate" else scale


def row(judge_seeds: int, name: str, way: str, seed: int) -> Row:
    """One fit: how far it is off in truth, and what the judge says of it."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    problem, mean, sd = truth(name)
    if way.startswith("moments"):
        location, root = mean, sd.diag() / (4 if way != "moments" else 1)
        location = location + 0.02 * seed * sd  # good, and another fit for each seed
    else:
        location, root = climbed(TARGETS[name], way, seed, sd)
    fit = GaussianPosterior(
        problem,
        location=location,
        scale_tril=root,
        location_error=torch.zeros_like(location),
        engine=way,
        status=Status.CONVERGED,
    )
    error = float(((location - mean).abs() / sd).max())
    ratio = root.square().sum(-1).sqrt() / sd
    worst = float(ratio[ratio.log().abs().argmax()])
    began = time.process_time()
    found = [judge(fit, seed=1000 * s + 17) for s in range(judge_seeds)]
    seconds = (time.process_time() - began) / judge_seeds
    return {
        "kind": TARGETS[name].kind,
        "is_bad": not error <= MEAN_LIMIT or not abs(worst - 1) <= SD_LIMIT,
        "mean_error": round(error, 3),
        "sd_ratio": round(worst, 3),
        "verdicts": [f.verdict.grade.value for f in found],
        "khats": [round(f.khat.value, 2) if f.khat else None for f in found],
        "reason": found[0].verdict.reason,
        "judge_seconds": round(seconds, 2),
    }


def summary(rows: list[Row]) -> str:
    """Markdown: false and withheld trust by kind of target, and repeatability."""
    lines = [
        "| targets | bad fits | trusted | good fits | trusted | good, with care | good, refused |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in [*dict.fromkeys(r["kind"] for r in rows), "all"]:
        own = [r for r in rows if kind in (r["kind"], "all")]
        bad = Counter(r["verdicts"][0] for r in own if r["is_bad"])
        good = Counter(r["verdicts"][0] for r in own if not r["is_bad"])
        lines.append(
            f"| {kind} | {bad.total()} | {bad['trust']} | {good.total()} | {good['trust']} "
            f"| {good['use with care']} | {good['do not use']} |"
        )
    differ = sum(len(set(r["verdicts"])) > 1 for r in rows)
    far = sum({"trust", "do not use"} <= set(r["verdicts"]) for r in rows)
    seconds = sorted(r["judge_seconds"] for r in rows)
    lines += [
        "",
        f"Seeds of the judge disagree on {differ} of {len(rows)} fits, on {far} of them between "
        f"*trust* and *do not use*. A judgement takes {seconds[len(seconds) // 2]:.2f} processor "
        f"seconds (median), {seconds[-1]:.2f} at most.",
        "",
        "Bad fits trusted: "
        + "; ".join(
            f"{r['target']}, {r['way']} (mean off by {r['mean_error']} sd, sd ratio {r['sd_ratio']})"
            for r in rows
            if r["is_bad"] and "trust" in r["verdicts"]
        ),
        "",
        "Good fits not trusted: "
        + "; ".join(
            f"{r['target']}, {r['way']}: {r['reason']}"
            for r in rows
            if not r["is_bad"] and r["verdicts"][0] != "trust"
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = judged_tables.parser(__doc__, seeds=1)
    parser.add_argument("--judge-seeds", type=int, default=2)
    options = parser.parse_args()
    keys = [
        (name, way, seed)
        for name in TARGETS
        if options.only in name
        for way in WAYS
        for seed in range(options.seeds)
    ]
    judged_tables.table(
        options,
        "adversarial_honesty",
        keys,
        NAMES,
        partial(row, options.judge_seeds),
        summary,
        together=len(WAYS) * options.seeds,
    )


if __name__ == "__main__":
    main()
