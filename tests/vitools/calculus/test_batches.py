"""Every conjugate model can be moved from several states at once, with the numbers of each alone."""

import pytest
import torch
from test_conjugate_models import CASES

from vitools.calculus import ConjugateModel
from vitools.engines.cavi.coordinate_ascent import CoordinateAscent, Schedule
from vitools.posterior import Status

SCHEDULE = Schedule(tol=0.0, max_sweeps=4, accelerate=True, inner_sweeps=None, warmup_sweeps=None)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_gives_what_its_runs_give_alone(name):
    function, args, options = CASES[name]

    def bounds(seeds):
        with torch.no_grad():
            ascent = CoordinateAscent(ConjugateModel(function, args, **options), seeds, SCHEDULE)
            ascent.run(None, 0.0)
            return [run.history.elbo for run in ascent.runs(Status.STOPPED_AT_LIMIT)]

    together, alone = bounds([0, 1]), bounds([0]) + bounds([1])
    assert together[0] == pytest.approx(alone[0], rel=1e-8)
    assert together[1] == pytest.approx(alone[1], rel=1e-8)
