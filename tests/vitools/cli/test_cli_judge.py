"""``vitools judge``: draws of another program, from a file."""

import numpy as np
import pytest

from vitools.models import coin
from vitools.reporting.arviz.groups import import_arviz, save_netcdf

HEADS = coin.example(0).args[0]


def stored(path, p, **stats):
    az = import_arviz()
    more = {"sample_stats": stats} if stats else {}
    save_netcdf(az.from_dict(posterior={"p": p}, **more), path)


def draws(seed=0):
    ones = float(HEADS.sum())
    shape = 1 + ones, 1 + len(HEADS) - ones
    return np.random.default_rng(seed).beta(*shape, size=(4, 500))


def test_good_draws_are_trusted(vitools, folder):
    stored(folder / "good.nc", draws())
    done = vitools("judge", "coin", "--draws", "good.nc")
    assert done.exit_code == 0
    assert "good.nc fit of model" in done.stdout
    assert "verdict: trust: R-hat 1.00" in done.stdout


def test_chains_that_do_not_agree_are_not(vitools, folder):
    apart = draws()
    apart[-1] **= 3
    stored(folder / "bad.nc", apart)
    done = vitools("judge", "coin", "--draws", "bad.nc")
    assert done.exit_code == 1
    assert "verdict: do not use: not mixed" in done.stdout


def test_divergences_are_read_and_named(vitools, folder):
    stored(folder / "some.nc", draws(), diverging=np.arange(2000).reshape(4, 500) < 3)
    done = vitools("judge", "coin", "--draws", "some.nc")
    assert done.exit_code == 0
    assert "verdict: use with care: 3 transitions diverged" in done.stdout.replace("\n", " ")
    # one in a thousand, where the energies tell of no funnel, is no more than named
    stored(folder / "stray.nc", draws(), diverging=np.arange(2000).reshape(4, 500) < 2)
    done = vitools("judge", "coin", "--draws", "stray.nc")
    words = " ".join(done.stdout.split())
    assert "verdict: trust" in words
    assert "2 divergences" in words.partition("verdict:")[2]


@pytest.mark.parametrize(
    ("p", "words"), [({"q": 0.5}, "draws of p are missing"), ({"p": 1.5}, "outside its support")]
)
def test_what_does_not_fit_the_model_is_named(refused, folder, p, words):
    az = import_arviz()
    save_netcdf(
        az.from_dict(posterior={k: np.full((2, 20), v) for k, v in p.items()}), folder / "x.nc"
    )
    assert words in refused("judge", "coin", "--draws", "x.nc")


def test_a_missing_file_is_named(refused):
    assert "no file 'nowhere.nc'" in refused("judge", "coin", "--draws", "nowhere.nc")
