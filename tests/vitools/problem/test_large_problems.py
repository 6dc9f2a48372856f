"""Models whose run on values needs more memory than there is, read from a dry run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, load, save, svi
from vitools.errors import DataError, ModelError, NotSupportedError
from vitools.guides import AutoMeanField
from vitools.problem.reading import dry_run, runs

AP = Path(__file__).resolve().parents[4] / "shared" / "data" / "topic_ap" / "bow.npz"


def topics_model(words, documents, shape, topics):
    """Latent Dirichlet allocation, one row a token: φ[z] has a row of the vocabulary for each."""
    count, vocabulary = shape
    with pyro.plate("topics", topics):
        wide = torch.full((vocabulary,), 1 / topics, dtype=torch.float64)
        phi = pyro.sample("phi", dist.Dirichlet(wide))
    with pyro.plate("documents", count):
        narrow = torch.full((topics,), 1 / topics, dtype=torch.float64)
        theta = pyro.sample("theta", dist.Dirichlet(narrow))
    with pyro.plate("words", len(words)):
        z = pyro.sample("z", dist.Categorical(theta[documents]))
        pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def tokens(count, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, shape[1], (count,), generator=generator)
    return words, torch.randint(0, shape[0], (count,), generator=generator)


@pytest.fixture
def little_memory(monkeypatch):
    """A machine of two megabytes."""
    monkeypatch.setattr(dry_run, "_memory", lambda device: 2e6)
    monkeypatch.setattr(dry_run, "SMALL", 2**14)
    monkeypatch.setattr(runs, "LARGE", 2**16)


def log_likelihood(words, documents, phi, theta):
    """Σ_n log Σ_k θ[d_n, k] φ[k, w_n]."""
    return (theta[documents] * phi[:, words].T).sum(-1).log().sum()


def log_prior(phi, theta):
    topics = len(phi)
    wide = dist.Dirichlet(torch.full(phi.shape[1:], 1 / topics, dtype=torch.float64))
    narrow = dist.Dirichlet(torch.full(theta.shape[1:], 1 / topics, dtype=torch.float64))
    return wide.log_prob(phi).sum() + narrow.log_prob(theta).sum()


# ---- 800 gigabytes, on any machine ----------------------------------------------------------


@pytest.fixture(scope="module")
def huge():
    shape = (20, 100_000)
    arguments = (*tokens(10**6, shape), shape, 2)
    return Problem(topics_model, *arguments), arguments


def test_a_model_of_800_gigabytes_is_read(huge):
    problem, _ = huge
    assert problem.is_large
    assert {k: tuple(s.shape) for k, s in problem.latents.items()} == {
        "phi": (2, 100_000),
        "theta": (20, 2),
        "z": (10**6,),
    }
    assert problem.latents["z"].support_values.tolist() == [0, 1]
    assert problem.observed["word"].plates == ("words",)
    assert problem.plates["words"].size == 10**6


def test_its_density_is_exact_where_the_enumerated_model_is_small(huge):
    problem, (words, documents, _, _) = huge
    prior = problem.prior(2, seed=3)
    expected = [
        log_likelihood(words, documents, phi, theta) + log_prior(phi, theta)
        for phi, theta in zip(prior["phi"], prior["theta"], strict=True)
    ]
    got = problem.log_joint({k: prior[k] for k in ("phi", "theta")})
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-10, atol=0.0)


def test_what_needs_800_gigabytes_is_refused_by_name(huge):
    problem, _ = huge
    prior = problem.prior(1)
    with pytest.raises(NotSupportedError, match=r"density of .* site 'word' needs .* 800 GB"):
        problem.log_joint(prior)  # with z given, every token has its own row of the vocabulary
    with pytest.raises(NotSupportedError, match=r"drawing 'word' .* 800 GB .*cavi\(\)"):
        problem.predictive(prior)


def test_its_data_are_checked_as_ever(huge):
    _, (words, documents, shape, topics) = huge
    wrong = words.clone()
    wrong[7] = shape[1]
    with pytest.raises(DataError, match=r"site 'word'.*integers 0 to 99999.*100000 at index 7"):
        Problem(topics_model, wrong, documents, shape, topics)
    missing = words.double()
    missing[8] = torch.nan
    with pytest.raises(DataError, match=r"site 'word'.*finite.*index 8"):
        Problem(topics_model, missing, documents, shape, topics)


# ---- the same problem read from a dry run and from values --------------------------------------


def test_a_dry_run_tells_what_a_run_on_values_tells(request):
    shape = (5, 300)
    arguments = (*tokens(2000, shape), shape, 3)
    small = Problem(topics_model, *arguments)
    request.getfixturevalue("little_memory")
    large = Problem(topics_model, *arguments)
    assert large.is_large
    assert not small.is_large
    for sites in ("latents", "observed"):
        for name, site in getattr(small, sites).items():
            other = getattr(large, sites)[name]
            for field in ("shape", "plates", "event_dim", "dtype", "is_discrete", "distribution"):
                assert getattr(other, field) == getattr(site, field), (name, field)
            assert str(other.support) == str(site.support)
    assert large.plates == small.plates
    assert large.fingerprint == small.fingerprint
    draws = small.prior(2, seed=1)
    values = {k: draws[k] for k in ("phi", "theta")}
    torch.testing.assert_close(large.log_joint(values), small.log_joint(values))
    first, second = cavi(large, max_sweeps=20), cavi(small, max_sweeps=20)
    assert first.elbo() == second.elbo()


def test_a_fit_of_a_large_problem_is_saved_and_loaded(little_memory, tmp_path):
    shape = (5, 300)
    problem = Problem(topics_model, *tokens(2000, shape), shape, 3)
    fit = cavi(problem, max_sweeps=50)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    assert again.elbo() == fit.elbo()
    assert fit.elbo().standard_error == 0
    torch.testing.assert_close(again.mean()["phi"], fit.mean()["phi"])
    assert fit.marginal("phi").concentration.shape == (3, 300)


def test_a_model_that_reads_values_is_refused_before_memory_runs_out(little_memory):
    def model(x):
        scale = pyro.sample("scale", dist.Gamma(1.0, 1.0))
        with pyro.plate("n", len(x)):
            loc = (x[:, None] * x).sum(-1)  # 8 MB where a tensor may take half of one
            if bool(loc.sum() > 0):
                pyro.sample("y", dist.Normal(loc, scale), obs=x)

    with pytest.raises(NotSupportedError, match=r"run on values: .* 0.008 GB \(1000 × 1000\)"):
        Problem(model, torch.ones(1000, dtype=torch.float64))


def test_a_density_that_no_enumeration_makes_small_is_refused(little_memory):
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([1000]).to_event(1))
        loc = x[:, None] * w
        with pyro.plate("n", len(x)):
            pyro.sample("y", dist.Normal(loc.mean(-1), 1.0), obs=x)

    problem = Problem(model, torch.ones(1000))
    with pytest.raises(NotSupportedError, match=r"density of .* site 'y' needs .* \(1000 × 1000\)"):
        problem.log_joint({"w": torch.ones(1000)})
    assert problem.prior(3)["w"].shape == (3, 1000)


def test_a_problem_that_makes_no_large_tensor_is_run_on_values():
    problem = Problem(topics_model, *tokens(3000, (5, 400)), (5, 400), 3)  # φ[z] takes 10 MB
    assert not problem.is_large


def test_what_an_engine_refuses_of_a_small_problem_is_refused_before_a_large_one_s_first_density(
    monkeypatch,
):
    """A latent used outside its plate: the enumerated sum runs over the wrong thing."""

    def model(x):
        with pyro.plate("n", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((), 0.3, dtype=torch.float64)))
        level = pyro.sample("level", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("m", len(x)):
            pyro.sample("x", dist.Normal(level + z.sum(-1, keepdim=True), 1.0), obs=x)

    data = torch.zeros(6, dtype=torch.float64)
    with pytest.raises(ModelError, match="changes when the discrete latents"):
        Problem(model, data).try_enumeration()
    monkeypatch.setattr(runs, "LARGE", 64)
    monkeypatch.setattr("vitools.problem.factored.LARGE", 64)
    problem = Problem(model, data)
    with pytest.raises(ModelError, match="changes when the discrete latents"):
        svi(problem, AutoMeanField, max_steps=10)
    for _ in range(2):
        with pytest.raises(ModelError, match="changes when the discrete latents"):
            problem.log_joint({"level": torch.zeros((), dtype=torch.float64)})


def test_matrices_are_factorised_without_values(monkeypatch):
    def model(x):
        eye = torch.eye(2, dtype=torch.float64)
        with pyro.plate("k", 3):
            tau = pyro.sample("tau", dist.Gamma(eye[0] + 2, eye[0] + 1).to_event(1))
        precision = tau.unsqueeze(-1) * eye
        with pyro.plate("n", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3, dtype=torch.float64)))
            normal = dist.MultivariateNormal(eye[0], precision_matrix=precision[z])
            pyro.sample("x", normal, obs=x)

    problem = Problem(model, torch.zeros(2_000_000, 2, dtype=torch.float64))  # precision[z]: 64 MB
    assert problem.is_large
    assert problem.observed["x"].shape == (2_000_000, 2)


# ---- a real corpus ------------------------------------------------------------------------------


def ap_corpus():
    """The arguments of the topic model: a row for each token of the AP corpus, 50 topics."""
    stored = np.load(AP)
    shape = (len(stored["indptr"]) - 1, int(stored["indices"].max()) + 1)
    owner = np.repeat(np.arange(shape[0]), np.diff(stored["indptr"]))
    words = torch.from_numpy(np.repeat(stored["indices"], stored["counts"])).long()
    documents = torch.from_numpy(np.repeat(owner, stored["counts"])).long()
    return words, documents, shape, 50


needs_corpus = pytest.mark.skipif(
    not AP.exists(), reason="the AP corpus is not beside the repository"
)


def kilobytes(name):
    """A line of what Linux says of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.slow
@needs_corpus
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_the_topic_model_of_the_ap_corpus_takes_little_memory():
    """In a process of its own, whose peak no other test has raised."""
    script = """
import test_large_problems as here
arguments = here.ap_corpus()
here.Problem(here.topics_model, *here.tokens(100, (5, 30)), (5, 30), 3)  # loads all modules
open("/proc/self/clear_refs", "w").write("5")  # the peak is now what is in use
before = here.kilobytes("VmHWM")
problem = here.Problem(here.topics_model, *arguments)
print(problem.is_large, here.kilobytes("VmHWM") - before)
"""
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=place, capture_output=True, text=True, check=True)
    is_large, grown = done.stdout.split()
    assert is_large == "True"
    assert 0 < 1024 * int(grown) < 3e8


@pytest.mark.slow
@needs_corpus
def test_topics_of_the_ap_corpus():
    words, documents, shape, topics = ap_corpus()
    problem = Problem(topics_model, words, documents, shape, topics)
    fit = cavi(problem, max_sweeps=10)
    bounds = fit.history.elbo
    assert fit.elbo().value == bounds[-1]
    assert bounds[-1] > bounds[0]
    phi, theta = fit.mean()["phi"], fit.mean()["theta"]
    torch.testing.assert_close(phi.sum(-1), torch.ones(50, dtype=phi.dtype))
    # the tokens summed out of the joint density can only add to the bound
    per_token = log_likelihood(words, documents, phi, theta) / len(words)
    assert per_token > fit.elbo().value / len(words)
    torch.testing.assert_close(
        problem.log_joint({"phi": phi, "theta": theta}),
        log_likelihood(words, documents, phi, theta) + log_prior(phi, theta),
        rtol=1e-10,
        atol=0.0,
    )
