"""Learnt densities in files: the same to the last digit, and refused where they are not what is asked for."""

import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

from vitools import Problem, cavi, fit_density, load, save
from vitools.errors import FileError, NotSupportedError, OptionError
from vitools.models import coin
from vitools.posterior import load as load_fit

SMALL = {"layers": 2, "width": 8, "max_steps": 30}


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["normal", "spline", "realnvp"])
def test_of_samples_the_same_comes_back(tmp_path, kind):
    given = rows(300)[:, 0]
    x = torch.stack([(rows(300, 1)[:, 0] + given).exp(), torch.sigmoid(rows(300, 1)[:, 1])], 1)
    q = fit_density(
        x, given, kind=kind, support=[constraints.positive, constraints.interval(0.0, 1.0)], **SMALL
    )
    save(q, tmp_path / "q.safetensors")
    again = load(tmp_path / "q.safetensors")
    assert torch.equal(again.log_prob(x, given), q.log_prob(x, given))
    assert torch.equal(again.log_prob(-x, given), q.log_prob(-x, given))  # outside of the support
    assert torch.equal(again.sample(20, given[:3], seed=1), q.sample(20, given[:3], seed=1))
    assert str(again) == str(q)
    assert (again.held_out, again.gain, again.status) == (q.held_out, q.gain, q.status)
    assert vars(again.history) == vars(q.history)
    levels = [d.calibration(x[:30], given[:30], num_samples=20).levels for d in (q, again)]
    assert all((levels[0][name] == levels[1][name]).all() for name in levels[0])


def test_numbers_without_a_context(tmp_path):
    x = rows(300)[:, 0]
    q = fit_density(x, kind="normal")
    save(q, tmp_path / "q.safetensors")
    again = load(tmp_path / "q.safetensors")
    assert again.sample(3).shape == (3,)
    assert torch.equal(again.log_prob(x), q.log_prob(x))


def bowl(x: Tensor) -> Tensor:
    return x.square().sum(-1) / 2


@pytest.mark.parametrize("kind", ["normal", "spline"])
def test_of_an_energy_the_same_comes_back(tmp_path, kind):
    fit = fit_density(energy=bowl, dim=2, temperature=1.5, kind=kind, **SMALL)
    save(fit, tmp_path / "q.safetensors")
    again = load(tmp_path / "q.safetensors", energy=bowl)
    assert torch.equal(again.sample(20, seed=1), fit.sample(20, seed=1))
    assert torch.equal(again.history, fit.history)
    assert again.log_normaliser(200) == fit.log_normaliser(200)
    with pytest.raises(FileError, match="was learnt from another energy: at one of its points"):
        load(tmp_path / "q.safetensors", energy=lambda x: bowl(x) + 1)
    with pytest.raises(FileError, match="was learnt from another energy"):
        load(tmp_path / "q.safetensors", energy=lambda x: x)


class Own(constraints.Constraint):
    def check(self, value):
        return value > 0


def test_what_is_refused(tmp_path):
    density, energies, fit = (tmp_path / f"{k}.safetensors" for k in "def")
    save(fit_density(rows(200), kind="normal"), density)
    save(fit_density(energy=bowl, dim=2, kind="normal", max_steps=2), energies)
    problem = Problem(coin.model, torch.tensor([1.0, 0.0, 1.0]))
    save(cavi(problem), fit)
    assert load(fit, problem).problem is problem
    for call, kind, words in [
        (lambda: save(3, density), OptionError, "expected a fit or a learnt density to save, got int"),
        (lambda: load(density, problem), OptionError, "problem: .* a density learnt from samples, which takes none"),
        (lambda: load(density, energy=bowl), OptionError, "energy: .* which takes none. Leave it out"),
        (lambda: load(energies), OptionError, "energy: .* a density learnt from an energy; expected the energy"),
        (lambda: load(energies, energy=3), OptionError, r"energy: expected a function of points \[n, D\], got 3"),
        (lambda: load(fit), OptionError, "problem: .* holds a fit; expected the problem"),
        (lambda: load(fit, problem, energy=bowl), OptionError, "energy: .* holds a fit, which takes none"),
        (lambda: load(tmp_path / "none"), FileError, "no file"),
        (lambda: load_fit(density, problem), FileError, "holds a density learnt by fit_density"),
    ]:  # fmt: skip
        with pytest.raises(kind, match=words):
            call()
    damaged = bytearray(density.read_bytes())
    damaged[-1] ^= 1
    density.write_bytes(damaged)
    with pytest.raises(FileError, match="do not match their digest"):
        load(density)


def test_a_support_that_a_file_cannot_hold(tmp_path):
    q = fit_density(rows(200)[:, 0].exp(), kind="normal", support=constraints.positive)
    q._columns.supports[0] = Own()
    with pytest.raises(NotSupportedError, match="a class of your own, which a file cannot hold"):
        save(q, tmp_path / "q.safetensors")
    assert not list(tmp_path.iterdir())
