"""Saving and loading: everything comes back, and nothing else is accepted."""

import os
import signal
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from safetensors.torch import save_file
from torch import distributions as td

from vitools import load, save
from vitools.errors import FileError, NotSupportedError
from vitools.files.archive import read_archive, write_archive
from vitools.files.atomic import atomic_path, check_folder
from vitools.guides import AutoKumaraswamy
from vitools.isolation import isolated, seeded
from vitools.models import coin
from vitools.posterior import (
    DrawsPosterior,
    Estimate,
    FactorisedPosterior,
    GridPosterior,
    GuidePosterior,
    History,
    Status,
)
from vitools.problem import Problem


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def common(status=Status.STOPPED_AT_LIMIT):
    history = History([1, 2, 3], [-3.0, -2.0, -1.5], [0.1, 0.2, 0.3])
    return {
        "engine": "test",
        "status": status,
        "history": history,
        "seconds": 1.25,
        "seed": 7,
        "detail": "a detail, with ± and ₂",
    }


def coin_problem():
    return Problem(coin.model, coin.simulate(20))


def everything(y):
    pi = pyro.sample("pi", dist.Dirichlet(torch.ones(3)))
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    v = pyro.sample("v", dist.InverseGamma(3.0, 1.0))
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    r = pyro.sample("r", dist.Exponential(1.0))
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    c = pyro.sample("c", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(pi))
        a = pyro.sample("a", dist.Bernoulli(p))
        o = pyro.sample("o", dist.OneHotCategorical(pi))
        scale = tau.rsqrt() + v + r
        mean = b + w.sum(-1) + c.sum(-1) + z + a + o[..., 0]
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


def factorised():
    problem = Problem(everything, randn(4))
    root = torch.tril(randn(3, 3, seed=2)) + 2 * torch.eye(3)
    factors = {
        "pi": td.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
        "tau": td.Gamma(torch.tensor(3.0), torch.tensor(2.0)),
        "v": dist.InverseGamma(torch.tensor(4.0), torch.tensor(2.0)),
        "p": td.Beta(torch.tensor(3.0), torch.tensor(2.0)),
        "r": td.Exponential(torch.tensor(3.0)),
        ("w", "b"): td.MultivariateNormal(torch.tensor([0.1, 0.2, 0.3]), scale_tril=root),
        "c": td.Independent(td.Normal(torch.zeros(2), torch.tensor([0.5, 2.0])), 1),
        "z": td.Categorical(logits=randn(4, 3)),
        "a": td.Bernoulli(logits=randn(4)),
        "o": td.OneHotCategorical(logits=randn(4, 3)),
    }
    return FactorisedPosterior(problem, factors, -12.5, **common(Status.CONVERGED))


def draws():
    values = {"p": torch.sigmoid(randn(2, 30))}
    return DrawsPosterior(
        coin_problem(),
        values,
        rhat={"p": 1.01},
        ess={"p": float("inf")},
        divergences=2,
        **common(Status.NOT_MIXED),
    )


def grid():
    nodes = torch.linspace(-3, 3, 40)[:, None]
    return GridPosterior(
        coin_problem(),
        nodes=nodes,
        log_masses=(-(nodes[:, 0] ** 2)).log_softmax(0),
        cell=(nodes[1] - nodes[0])[None],
        log_evidence=Estimate(-13.0, 1e-9),
        **common(Status.EXACT),
    )


def guided(make=AutoKumaraswamy):
    problem = coin_problem()
    guide = make(problem.model)
    with seeded(0), isolated() as params:
        guide(*problem.args)
    with torch.no_grad():
        for parameter in params["params"].values():
            parameter.add_(0.3)
    return GuidePosterior(problem, guide, params, **common(Status.DIVERGED))


KINDS = {
    "draws": draws,
    "factorised": factorised,
    "grid": grid,
    "guided": guided,
    "pyro's guide": lambda: guided(AutoNormal),
}


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, tmp_path):
    fit = KINDS[kind]()
    path = tmp_path / "new folder" / "fit.safetensors"
    save(fit, path)
    assert os.listdir(path.parent) == ["fit.safetensors"]
    again = load(path, fit.problem)
    assert type(again) is type(fit)
    for name in ("engine", "status", "history", "seconds", "seed", "detail"):
        assert getattr(again, name) == getattr(fit, name)
    first, second = fit.sample(20, seed=3), again.sample(20, seed=3)
    assert all(torch.equal(first[k], second[k]) for k in first)
    for ours, theirs in ((fit.mean(), again.mean()), (fit.sd(), again.sd())):
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert str(again) == str(fit)
    if kind == "draws":
        assert (again.rhat, again.ess, again.divergences) == (fit.rhat, fit.ess, 2)
        return
    torch.testing.assert_close(again.log_prob(first), fit.log_prob(first), rtol=0, atol=0)
    assert again.elbo(50, seed=2) == fit.elbo(50, seed=2)
    if kind == "factorised":
        for name in ("z", "a", "o", "w", "v"):
            ours, theirs = fit.marginal(name), again.marginal(name)
            value = fit.problem.prior(1)[name][0]
            torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))


def test_saving_again_replaces_the_file(tmp_path):
    path = tmp_path / "fit.safetensors"
    save(draws(), path)
    save(grid(), path)
    assert type(load(path, coin_problem())) is GridPosterior
    assert os.listdir(tmp_path) == ["fit.safetensors"]


def my_guide(flips, a=1.0, b=1.0):
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("p", dist.Beta(loc.exp() + 1, 2.0))


def test_a_guide_of_ones_own_is_asked_for(tmp_path):
    problem = coin_problem()
    params = {"params": {"loc": torch.nn.Parameter(torch.tensor(1.5))}, "constraints": {}}
    params["constraints"]["loc"] = dist.constraints.real
    fit = GuidePosterior(problem, my_guide, params, **common())
    save(fit, tmp_path / "fit")
    with pytest.raises(NotSupportedError, match=r"this fit used the guide .*; pass it"):
        load(tmp_path / "fit", problem)
    again = load(tmp_path / "fit", problem, guide=my_guide)
    assert torch.equal(again.sample(5)["p"], fit.sample(5)["p"])
    with pytest.raises(NotSupportedError, match=r"the saved parameters .* are not those of guide"):
        load(tmp_path / "fit", problem, guide=AutoKumaraswamy)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "fit.safetensors"
    save(grid(), path)
    return path


def test_every_cut_is_noticed(saved):
    content = saved.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(FileError, match=f"'{saved}' is not a whole safetensors file"):
            load(saved, coin_problem())


def test_every_flipped_byte_is_noticed(saved):
    problem = coin_problem()
    content = saved.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x15
        saved.write_bytes(damaged)
        with pytest.raises(FileError, match=r"damaged|not one vitools wrote|not a whole"):
            load(saved, problem)


def test_foreign_files_are_refused(tmp_path):
    problem = coin_problem()
    path = tmp_path / "other"
    with pytest.raises(FileError, match=f"no file '{path}'"):
        load(path, problem)
    with pytest.raises(FileError, match="no file"):
        load(tmp_path, problem)
    path.write_text("site,mean\np,0.5\n" * 40)
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        load(path, problem)
    save_file({"a": torch.zeros(3)}, str(path))
    with pytest.raises(FileError, match="is a safetensors file, but not one vitools wrote"):
        load(path, problem)
    save_file({"a": torch.zeros(3)}, str(path), metadata={"vitools": "{not json", "digest": "0"})
    with pytest.raises(FileError, match="damaged"):
        load(path, problem)


def test_other_formats_are_named(saved):
    header, tensors = read_archive(saved)
    assert header["kind"] == "GridPosterior"
    write_archive(saved, header | {"format": 99, "version": "9.9"}, tensors)
    with pytest.raises(FileError, match=r"written by vitools 9.9 in format 99; this is vitools"):
        load(saved, coin_problem())


def test_other_data_are_refused(saved):
    for problem in (
        Problem(coin.model, coin.simulate(20, seed=1)),
        Problem(coin.model, coin.simulate(20), 2.0),
        Problem(everything, randn(4)),
    ):
        with pytest.raises(FileError, match="is a fit of model 'coin' to other data or sites"):
            load(saved, problem)


# ---- half-written files ---------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FileError, match=r"cannot write '.*/file/fit': .* Choose another folder"):
        save(grid(), blocked / "fit")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match=r"cannot write .*: Permission denied"):
        save(grid(), tmp_path / "fit")
    tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), PermissionError(13, "no")]
)
def test_an_error_while_writing_leaves_the_old_file(saved, monkeypatch, error):
    before = saved.read_bytes()

    def fails(path, content):
        with path.open("wb") as file:
            file.write(content[:4])
        raise error

    monkeypatch.setattr("pathlib.Path.write_bytes", fails)
    with pytest.raises(FileError, match=f"cannot write '{saved}': {error.strerror}"):
        save(draws(), saved)
    assert os.listdir(saved.parent) == [saved.name]
    assert saved.read_bytes() == before


def test_any_other_error_or_interrupt_leaves_nothing(tmp_path):
    def writes_half(error):
        with atomic_path(tmp_path / "a.txt") as path:
            path.write_text("half")
            raise error

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            writes_half(error)
        assert os.listdir(tmp_path) == []


def half_of_the_bytes(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def instead(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("owner", "name", "killed"),
    [
        (Path, "write_bytes", half_of_the_bytes),
        (os, "fsync", instead),
        (os, "replace", instead),
    ],
)
def test_a_process_killed_while_it_writes_leaves_the_file_as_it_was(tmp_path, owner, name, killed):
    path = tmp_path / "run"
    write_archive(path, {"number": 1}, {"x": torch.ones(1000)})
    child = os.fork()
    if not child:
        setattr(owner, name, killed)
        write_archive(path, {"number": 2}, {"x": torch.zeros(1000)})
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    header, tensors = read_archive(path)
    assert header == {"number": 1}
    assert torch.equal(tensors["x"], torch.ones(1000))
    write_archive(path, {"number": 3}, {"x": torch.zeros(1000)})
    assert read_archive(path)[0] == {"number": 3}


def test_contents_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        plain = getattr(os, name)

        def watched(*args, name=name, plain=plain):
            calls.append(name)
            return plain(*args)

        monkeypatch.setattr(os, name, watched)
    write_archive(tmp_path / "run", {}, {"x": torch.ones(3)})
    assert calls == ["fsync", "replace"]


def test_folders_are_checked_beforehand(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write into '.*': '.*/file' is not a folder"):
        check_folder(tmp_path / "file" / "a")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileError, match=r"cannot write into '.*link/a': '.*/link' is not a folder"):
        check_folder(tmp_path / "link" / "a")
    with pytest.raises(FileError, match=r"File name too long"):
        check_folder(tmp_path / "made" / ("x" * 300))
    (tmp_path / "sub").mkdir()
    with pytest.raises(FileError, match=r"cannot write '.*/sub': it is a folder"):
        check_folder(tmp_path, "other", "sub")
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "sub"]


def test_permissions_are_those_of_a_new_file(tmp_path):
    with atomic_path(tmp_path / "ours") as path:
        path.write_text("")
    (tmp_path / "theirs").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_unsaveable_factors_are_named(tmp_path):
    fit = FactorisedPosterior(
        coin_problem(), {"p": td.Uniform(torch.tensor(0.0), torch.tensor(1.0))}, 0.0, **common()
    )
    with pytest.raises(NotSupportedError, match=r"q\(p\) is a Uniform, which cannot be saved"):
        save(fit, tmp_path / "fit")
    assert os.listdir(tmp_path) == []
