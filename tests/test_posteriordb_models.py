"""The posteriordb models against Stan's reference draws, without fitting anything.

For a density p on the reals, E ∂ log p / ∂u_i = 0 and E (u_i - E u_i) ∂ log p / ∂u_i = -1 (integrate by
parts): both hold at the reference draws only if the Pyro model states the same density.
"""

import sys
from pathlib import Path

import pytest
import torch

from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "data" / "posteriordb"
THINNING = 20

sys.path.insert(0, str(ROOT / "benchmarks" / "posteriordb"))
from posteriors import POSTERIORS  # noqa: E402

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="posteriordb is not here")


@pytest.mark.parametrize("name", POSTERIORS)
def test_the_score_identities_hold_at_the_reference_draws(name):
    posterior = POSTERIORS[name]
    space = UnconstrainedSpace(posterior.problem(FOLDER))
    points = space.from_values(posterior.latents(posterior.reference(FOLDER)))[::THINNING]
    points = points.clone().requires_grad_()
    (score,) = torch.autograd.grad(space.log_density(points).sum(), points)
    points = points.detach()
    for terms, expected in ((score, 0.0), ((points - points.mean(0)) * score, -1.0)):
        error = terms.std(0) / len(terms) ** 0.5
        assert bool(((terms.mean(0) - expected).abs() < 4 * error).all())
