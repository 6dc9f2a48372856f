"""Pictures: that they show what they say, for every kind of comparison."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from torch.distributions import Normal

from vitools import Problem, compare
from vitools.posterior import DrawsPosterior, FactorisedPosterior, History, Status
from vitools.reporting import plot_bound, plot_marginals, plot_moments
from vitools.reporting.plots.curves import density

NUM_SITES = 30


def model(x):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(NUM_SITES), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(mu.sum(), 1.0), obs=x)


@pytest.fixture(scope="module")
def fits():
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        problem = Problem(model, torch.tensor(1.0))

        def fit(shift):
            loc = torch.zeros(NUM_SITES).index_fill(0, torch.tensor([7]), shift)
            q = torch.distributions.Independent(Normal(loc, 0.5), 1)
            history = History(
                list(range(50)), [-60.0 + i for i in range(50)], [0.1 * i for i in range(50)]
            )
            return FactorisedPosterior(
                problem,
                {"mu": q},
                0.0,
                engine="cavi",
                status=Status.CONVERGED,
                history=history,
                seconds=5.0,
            )

        draws = {"mu": torch.randn(2, 300, NUM_SITES)}
        chains = DrawsPosterior(problem, draws, engine="nuts", status=Status.SAMPLED)
        made = {"near": fit(0.1), "far": fit(3.0), "chains": chains}
    torch.set_default_dtype(dtype)
    return made


def test_bound(fits):
    figure = plot_bound(compare(fits))
    axes = figure.axes[0]
    assert "seconds" in axes.get_xlabel()
    assert "nats; higher is better" in axes.get_ylabel()
    for word in ("Lines:", "Markers:", "Dotted:", "two standard errors"):
        assert word in figure.get_supxlabel()
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["near", "far"]
    bounds = compare(fits).table["bound"]
    low, high = axes.get_ylim()
    assert low < bounds.min() < bounds.max() < high


def test_marginals_show_where_the_fits_disagree(fits):
    figure = plot_marginals(compare(fits))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 12
    assert "mu[7]" in titles
    panel = figure.axes[titles.index("mu[7]")]
    peaks = [line.get_xdata()[np.argmax(line.get_ydata())] for line in panel.lines]
    assert sorted(peaks)[-1] == pytest.approx(3.0, abs=0.4)


def test_moments_are_in_units_of_the_reference(fits):
    comparison = compare(fits)
    axes = plot_moments(comparison).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    place = labels.index("mu[7]")
    far = axes.containers[1]
    reference = comparison.judgements["chains"].moments["mu"]
    expected = (3.0 - float(reference.mean[7])) / float(reference.sd[7])
    assert far.get_label() == "far"
    assert far[0].get_xdata()[place] == pytest.approx(expected)


@pytest.mark.parametrize("names", [["near"], ["chains"], ["near", "far"]])
def test_any_set_of_fits_can_be_drawn(fits, names, tmp_path):
    comparison = compare({name: fits[name] for name in names})
    for plot in (plot_bound, plot_marginals, plot_moments):
        figure = plot(comparison)
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 1000


def test_density_integrates_to_one_and_does_not_leak_over_a_boundary():
    draws = torch.empty(5000).exponential_(generator=torch.Generator().manual_seed(0)).numpy()
    points, heights = density(draws)
    assert np.trapezoid(heights, points) == pytest.approx(1.0, abs=0.02)
    assert heights[0] == pytest.approx(1.0, abs=0.15)  # without reflection it would be near 1/2


def test_copies_of_an_entry_are_shown_once(fits):
    def symmetric(x):
        model(x)

    symmetric.invariants = lambda values: {
        "pair": values["mu"][..., :2, None] * values["mu"][..., None, :2]
    }
    problem = Problem(symmetric, torch.tensor(1.0))
    q = torch.distributions.Independent(Normal(torch.zeros(NUM_SITES), 0.5), 1)
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)
    titles = [axes.get_title() for axes in plot_marginals(compare({"q": fit})).axes]
    assert titles == ["pair[0,0]", "pair[0,1]", "pair[1,1]"]
