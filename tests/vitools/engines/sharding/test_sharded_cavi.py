"""Coordinate ascent on rows of several processes: the answer of one process with all of them."""

import os
import signal
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from several_processes import Failed, ended, on_ranks, started

from vitools import Problem, cavi, load, save
from vitools.engines import checkpoint as store
from vitools.models.groups import mixed
from vitools.models.mixtures import mixture as shipped_mixture


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


N = 300
X = normal(N, 3)
LINE = X.sum(1) + 1 + 0.5 * normal(N, seed=1)
SIDES = (X.sum(1) + normal(N, seed=2) > 0).double()
CLUSTERS = torch.tensor([-4.0, 0.0, 5.0]).double()[torch.arange(N) % 3] + X[:, 0]
COUNTS = torch.poisson((0.5 * X[:, 0]).exp(), generator=torch.Generator().manual_seed(3))
GROUP = torch.arange(N) * 7 % 5
WORDS = torch.multinomial(
    torch.tensor([[5.0, 4, 1, 1, 1, 1], [1, 1, 1, 1, 4, 5]])[torch.arange(40) % 2],
    12,
    replacement=True,
    generator=torch.Generator().manual_seed(4),
)


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    b = pyro.sample("b", dist.Normal(number(0.0), 3.0))
    tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + b, tau.rsqrt()), obs=y)


def mixture(y):
    with pyro.plate("components", 3):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
        tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


def groups(x, y, group):
    """A logistic mixed model: one factor for the coefficients and the levels of all groups."""
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("groups", 5):
        level = pyro.sample("level", dist.Normal(number(0.0), tau.rsqrt()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + level[group]), obs=y)


def free_form(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    scale = pyro.sample("scale", dist.HalfCauchy(number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


def overdispersed(y):
    """A latent of each row below a curved function, beside one of all."""
    mu = pyro.sample("mu", dist.Normal(number(0.0), 3.0))
    tau = pyro.sample("tau", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        eta = pyro.sample("eta", dist.Normal(mu, tau.rsqrt()))
        pyro.sample("y", dist.Poisson(eta.exp()), obs=y)


def topics(words):
    """Inner blocks: the topics of words and the weights of their documents."""
    with pyro.plate("topics", 2):
        beta = pyro.sample("beta", dist.Dirichlet(torch.ones(6).double()))
    with pyro.plate("documents", len(words), dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet(0.5 * torch.ones(1, 2).double()))
        with pyro.plate("words", words.shape[1], dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(beta[z]), obs=words)


shipped_clusters, shipped_groups = shipped_mixture.model, mixed.model
ERUPTIONS = shipped_mixture.simulate(120, seed=1).data
SLEEP = mixed.simulate(6, 10, seed=1)
MIXED_UP = torch.randperm(60, generator=torch.Generator().manual_seed(0))


def own(data, rank, size):
    """The rows of a process: unequal parts."""
    ends = [0, *(len(data) * (i + 1) ** 2 // size**2 for i in range(size))]
    return data[ends[rank] : ends[rank + 1]]


CASES = {
    "conjugate": (regression, (X, LINE), "rows", {}),
    "latents of rows": (mixture, (CLUSTERS,), "rows", {"restarts": 2}),
    "curved, groups": (groups, (X, SIDES, GROUP), "rows", {"tol": 1e-13}),
    "free form": (free_form, (1e4 + LINE,), "rows", {}),
    "topics": (topics, (WORDS,), "documents", {"tol": 1e-13}),
    "latents of rows, curved": (overdispersed, (COUNTS[:90],), "rows", {"joint": (), "tol": 1e-13}),
    # priors in the units of all rows; the first process lacks a group
    "shipped clusters": (shipped_clusters, (ERUPTIONS,), "rows", {}),
    "shipped groups": (
        shipped_groups,
        tuple(column[MIXED_UP] for column in (SLEEP.y, SLEEP.group, SLEEP.x)),
        "rows",
        {"tol": 1e-13},
    ),
}
QUICK = ("conjugate", "latents of rows")


def told(fit):
    """What is compared of a fit, as it can be sent."""
    mean, sd = fit.mean(), fit.sd()
    return {
        "bound": fit.bound,
        "mean": {name: mean[name] for name in mean},
        "sd": {name: sd[name] for name in sd},
        "restarts": fit.restart_bounds,
        "detail": fit.detail,
        "part": fit.part,
    }


def sharded(case, rank, size, **more):
    model, data, plate, options = CASES[case]
    problem = Problem(model, *(own(column, rank, size) for column in data))
    return cavi(problem, sharded=plate, **options, **more)


def assert_equal_to_one_process(case, ranks):
    model, data, plate, options = CASES[case]
    problem = Problem(model, *data)
    whole = cavi(problem, nested=(), **options)
    for found in ranks:
        assert found["bound"] == pytest.approx(whole.bound, rel=1e-9)
        assert found["restarts"] == pytest.approx(whole.restart_bounds, rel=1e-9)
    for name, site in problem.drawn.items():
        for moment, expected in (("mean", whole.mean()[name]), ("sd", whole.sd()[name])):
            parts = [found[moment][name] for found in ranks]
            got = torch.cat(parts) if plate in site.plates else parts[0]
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
            if plate not in site.plates:
                assert all(torch.equal(part, got) for part in parts)  # to the last bit


def test_the_answer_is_that_of_one_process(tmp_path):
    def work(rank):
        return {case: told(sharded(case, rank, 2)) for case in QUICK}

    ranks = on_ranks(work, 2, tmp_path)
    for case in QUICK:
        assert_equal_to_one_process(case, [found[case] for found in ranks])
    found = ranks[1]["latents of rows"]
    assert found["part"] == "rank 1 of 2"
    assert f"over {N} rows of 'rows' on 2 processes, best of 2 starts" in found["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_that_of_one_process_in_every_case(tmp_path, case, size):
    ranks = on_ranks(lambda rank: told(sharded(case, rank, size)), size, tmp_path)
    assert_equal_to_one_process(case, ranks)


@pytest.mark.slow
def test_rows_in_order_of_their_clusters_are_begun_alike(tmp_path):
    """The first process has none of the last cluster."""
    data = CLUSTERS.sort().values

    def work(rank):
        return told(
            cavi(Problem(mixture, data[: N // 2] if rank == 0 else data[N // 2 :]), sharded="rows")
        )

    ranks = on_ranks(work, 2, tmp_path)
    assert ranks[0]["bound"] == pytest.approx(cavi(Problem(mixture, data)).bound, rel=1e-9)


def by_mean(y):
    mu = pyro.sample("mu", dist.Normal(y.mean(), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y)


def centred(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y - y.mean())


def two_plates(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y)
    with pyro.plate("others", 4):
        pyro.sample("z", dist.Normal(mu, number(1.0)), obs=torch.zeros(4).double())


def shaped(df, y):
    nu = pyro.sample("nu", dist.Gamma(number(2.0), number(0.1)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.StudentT(nu, number(0.0), df), obs=y)


def chained(y):
    with pyro.plate("rows", len(y)):
        level = pyro.sample("level", dist.Normal(number(0.0), 1.0))
    pyro.sample("all", dist.Normal(level.sum(), number(1.0)), obs=y.sum())
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(level, number(1.0)), obs=y)


UNLIKE = {
    "a mean taken inside": (
        lambda r: (by_mean, (LINE[r::2],)),
        "states of site 'mu' depends on which rows there are",
    ),
    "data centred inside": (lambda r: (centred, (LINE[r::2],)), "depends on which rows there are"),
    "another model": (
        lambda r: ((free_form, by_mean)[r], (LINE,)),
        "the model is free_form on rank 0 and by_mean on rank 1",
    ),
    "another shape": (
        lambda r: (lambda x, y: regression(x[:, :3], y), (normal(20, 3 + r), LINE[:20])),
        "argument 0 is torch.float64 […, 3] on rank 0 and torch.float64 […, 4] on rank 1",
    ),
    "another option": (
        lambda r: (free_form, (LINE[r::2],), {"tol": 1e-6 * (1 + r)}),
        "what was asked for is",
    ),
    "a plate that one lacks": (
        lambda r: ((free_form, lambda y: free_form_in(y, "lines"))[r], (LINE,)),
        "no plate 'rows' in model",
    ),
    "rows in one factor": (
        lambda r: (chained, (LINE[:6],)),
        "one factor ties the rows of 'rows'",
    ),
}


def free_form_in(y, plate):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    scale = pyro.sample("scale", dist.HalfCauchy(number(1.0)))
    with pyro.plate(plate, len(y)):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


def test_what_processes_do_not_have_in_common_is_named_on_all_of_them(tmp_path):
    def work(rank):
        found = {}
        for case, (make, _) in UNLIKE.items():
            model, data, *options = make(rank)
            try:
                cavi(Problem(model, *data), sharded="rows", **(options[0] if options else {}))
            except Exception as error:
                found[case] = f"{type(error).__name__}: {error}"
        return found

    ranks = on_ranks(work, 2, tmp_path)
    for case, (_, words) in UNLIKE.items():
        for found in ranks:
            assert words in found[case], found[case]
            assert found[case].endswith(".")


@pytest.fixture
def alone():
    """A group of this process alone."""
    import torch.distributed as td

    td.init_process_group("gloo", store=td.HashStore(), rank=0, world_size=1)
    yield
    td.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        (
            regression,
            (X, LINE),
            {"sharded": "row"},
            "no plate 'row' in model 'regression' (plates: rows). Did",
        ),
        (regression, (X, LINE), {"sharded": 2}, "sharded: expected the name of a plate, got 2."),
        (regression, (X, LINE), {"nested": ["tau"]}, "sharded: not beside nested sites"),
        (regression, (X, LINE), {"batch_rows": 20}, "batch_rows: not beside sharded="),
        (
            regression,
            (X, LINE),
            {"start": {"b": number(1.0)}},
            "sharded: not beside a start by sites",
        ),
        (
            regression,
            (X, LINE),
            {"factorised": ["w"]},
            "sharded: the elements of 'w' are updated one after another",
        ),
        (shaped, (number(1.0), LINE), {}, "sharded:"),
    ],
)
def test_what_is_not_done_is_refused_by_name(model, data, options, words):
    from vitools.errors import VitoolsError

    with pytest.raises(VitoolsError) as caught:
        cavi(Problem(model, *data), **{"sharded": "rows", **options})
    assert words in str(caught.value)
    assert str(caught.value)[-1] in ".?"


def test_without_a_group_of_processes_it_is_refused():
    with pytest.raises(Exception, match="no group of processes has been made"):
        cavi(Problem(regression, X, LINE), sharded="rows")


@pytest.mark.usefixtures("alone")
def test_a_part_of_the_rows_is_not_weighed_and_says_so_after_loading(tmp_path):
    problem = Problem(mixture, CLUSTERS)
    fit = cavi(problem, sharded="rows", max_sweeps=3)
    save(fit, tmp_path / "fit.safetensors")
    for one in (fit, load(tmp_path / "fit.safetensors", problem)):
        with pytest.raises(
            Exception, match="its problem has those of rank 0 of 1, so importance weights"
        ):
            one.log_weights(10)
        assert one.predictive(2)["y"].shape == (2, N)


# ---- processes that end ----------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "case", ["conjugate", pytest.param("latents of rows", marks=pytest.mark.slow)]
)
def test_a_run_of_two_processes_goes_on_in_one(tmp_path, case):
    path = tmp_path / "run.ckpt"
    expected = told(sharded(case, 0, 1))

    def work(rank):
        store.SECONDS = 0.0
        sharded(case, rank, 2, checkpoint=path, max_sweeps=4)
        return None

    assert on_ranks(work, 2, tmp_path) == [None, None]
    fit = sharded(case, 0, 1, checkpoint=path, resume=True)
    assert fit.bound == pytest.approx(expected["bound"], rel=1e-9)
    assert fit.restart_bounds == pytest.approx(expected["restarts"], rel=1e-9)
    for name, mean in expected["mean"].items():
        torch.testing.assert_close(fit.mean()[name], mean, rtol=1e-9, atol=1e-9)
    done = sharded(case, 0, 1, checkpoint=path, resume=True)  # of a run that came to its end
    assert done.bound == pytest.approx(fit.bound, rel=1e-12)
    model, data, plate, _ = CASES[case]
    other = Problem(model, *(torch.cat([column[1:], column[:1] + 1]) for column in data))
    with pytest.raises(Exception, match="a checkpoint of another run: its problem is"):
        cavi(other, sharded=plate, checkpoint=path, resume=True)


def test_a_lost_process_ends_the_run_with_one_message(tmp_path):
    """The second is killed after a few sweeps."""
    path = tmp_path / "run.ckpt"

    def work(rank):
        store.SECONDS = 0.0

        def slowly(report):
            time.sleep(0.05)
            if rank == 1 and report.step >= 4:
                os.kill(os.getpid(), signal.SIGKILL)

        from vitools.engines import loop

        loop.REPORT_EVERY = 0.0
        sharded("latents of rows", rank, 2, checkpoint=path, progress=slowly)

    first, second = ended(started(work, 2, tmp_path), tmp_path)
    assert second is None
    assert isinstance(first, Failed)
    assert first.kind == "ProcessError"
    assert "another of the 2 processes has ended or does not answer" in first.words
    assert path.exists()
