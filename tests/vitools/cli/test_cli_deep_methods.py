"""A VAE and its rivals from the command line: how each is built, trained, judged and reported."""

import json

import pytest
import torch
from typer.testing import CliRunner

from vitools.cli import deep_methods
from vitools.cli.app import app
from vitools.cli.held_out import compare_held_out
from vitools.cli.methods import default_methods, find_method
from vitools.cli.target import Target
from vitools.engines import svi
from vitools.errors import NotSupportedError, OptionError
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import VAE, binarise, factor_analysis
from vitools.posterior import Status
from vitools.problem import Problem


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(deep_methods, "EVERY", 20)
    monkeypatch.setattr(deep_methods, "MAX_STEPS", 40)


def target(likelihood="bernoulli"):
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(80, 16, generator=generator)
    images = binarise(grey, 1, generator) if likelihood == "bernoulli" else grey
    train, validation, held_out = images[:50], images[50:65], images[65:]
    vae = VAE(16, 2, (5,), likelihood=likelihood)
    return Target(
        Problem(vae.model, train, batch_size=10),
        "noise",
        vae.guide,
        0.01,
        is_amortised=True,
        validation=(validation,),
        held_out=(held_out,),
    )


def run(name, aim):
    return find_method(name).run(aim, seed=0, progress=None, start=None)


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_rivals_are_built_for_the_same_images_and_leave_the_vae_alone():
    aim = target()
    assert default_methods(aim) == ["own-guide", "iwae", "hierarchical", "factor-analysis"]
    vae = aim.guide.__self__
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    fits = {name: run(name, aim) for name in ("iwae", "hierarchical", "factor-analysis")}
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name])
    deep = fits["hierarchical"].guide.__self__
    assert isinstance(deep, HierarchicalVAE)
    assert deep.latent_dims == (4, 2)
    assert [layer.out_features for layer in deep.encoder1.network if hasattr(layer, "bias")] == [
        5,
        8,
    ]
    linear = fits["factor-analysis"].guide.__self__
    assert [tuple(weight.shape) for weight in linear.decoder.parameters()] == [(16, 2), (16,)]
    fits["VAE"] = run("own-guide", aim)
    assert fits["VAE"].guide.__self__ is vae
    assert fits["VAE"].seconds > 0

    failures = {}
    comparison = compare_held_out(fits, aim.held_out, 0, failures)
    assert not failures
    assert comparison.num_data == 15
    assert comparison.rows == "images"
    assert set(comparison.fits["hierarchical"].kls) == {"z1", "z2"}
    for row in comparison.fits.values():
        assert row.elbo.value <= row.bound.value
        assert row.reconstruction.value - row.kl.value == pytest.approx(row.elbo.value, rel=1e-5)


@pytest.mark.usefixtures("float32_by_default")
@pytest.mark.parametrize("name", [pytest.param("iwae", marks=pytest.mark.slow), "factor-analysis"])
def test_a_rival_is_the_same_whether_or_not_the_vae_was_trained_before(name):
    alone, after = target(), target()
    run("own-guide", after)
    fits = [run(name, aim) for aim in (alone, after)]
    assert fits[0].history.elbo == fits[1].history.elbo


@pytest.mark.usefixtures("float32_by_default")
def test_factor_analysis_of_continuous_pixels_is_exact():
    aim = target("gaussian")
    fit = run("factor-analysis", aim)
    assert fit.status is Status.EXACT
    exact = factor_analysis(aim.problem.args[0], 2).log_likelihood(aim.held_out[0].double())
    row = compare_held_out({"FA": fit}, aim.held_out, 0, {}).fits["FA"]
    torch.testing.assert_close(row.bounds.double(), exact, rtol=0, atol=1e-3)
    assert row.khat_above == 0.0
    # The posterior itself has the model's density too.
    assert fit.elbo(100).value == pytest.approx(
        factor_analysis(aim.problem.args[0], 2).log_likelihood(aim.problem.args[0]).sum().item(),
        abs=0.05,
    )


@pytest.mark.usefixtures("float32_by_default")
def test_methods_that_do_not_apply_say_so():
    with pytest.raises(NotSupportedError, match=r"iwae is for models with an encoder"):
        run("iwae", Target(target().problem, "no guide"))
    grey = torch.randint(8, (20, 16), generator=torch.Generator().manual_seed(0)) / 7
    vae = VAE(16, 2, (5,), likelihood="categorical")
    aim = Target(Problem(vae.model, grey), "", vae.guide, validation=(grey,), held_out=(grey,))
    with pytest.raises(NotSupportedError, match="binary or continuous pixels, not categorical"):
        run("factor-analysis", aim)
    deep = HierarchicalVAE(16, (3, 2), ((5,), (4,)))
    images = target().held_out[0]
    aim = Target(
        Problem(deep.model, images), "", deep.guide, None, True, None, (images,), (images,)
    )
    assert default_methods(aim) == ["own-guide", "iwae"]
    with pytest.raises(NotSupportedError, match="a rival of the plain VAE; the model is a Hier"):
        run("hierarchical", aim)


@pytest.mark.usefixtures("float32_by_default")
def test_fits_without_an_encoder_are_reported_as_such():
    aim = target()
    failures = {}
    own, other = run("own-guide", aim), run("factor-analysis", aim)
    other.guide = object()
    assert deep_methods.has_encoder(own)
    assert not deep_methods.has_encoder(other)
    comparison = compare_held_out({"own": own, "other": other}, aim.held_out, 0, failures)
    assert list(comparison.fits) == ["own"]
    assert "has no encoder" in str(failures["other"])
    with pytest.raises(OptionError, match="add own-guide"):
        compare_held_out({"other": other}, aim.held_out, 0, failures)


@pytest.mark.slow  # the page of another model is written in test_cli.py
@pytest.mark.usefixtures("float32_by_default")
def test_compare_vae_writes_table_pictures_and_page(tmp_path):
    result = CliRunner().invoke(
        app,
        [
            "compare",
            "vae",
            "--methods",
            "own-guide,factor-analysis",
            "--report",
            str(tmp_path),
            "-q",
        ],
    )
    assert result.exit_code in (0, 1), result.output  # so short a run stops at its limit
    assert "behind the best" in result.output
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert set(record["fits"]) == {"VAE", "factor analysis"}
    assert record["num_data"] == 179
    for name in ("index.html", "reconstructions.png", "prior_samples.png", "latent_plane.png"):
        assert (tmp_path / name).stat().st_size > 1000
    assert "vitools compare vae --methods own-guide,factor-analysis" in (
        tmp_path / "index.html"
    ).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_fit_judges_a_vae_datum_by_datum():
    result = CliRunner().invoke(app, ["fit", "vae", "-q"])
    assert result.exit_code == 1, result.output  # so short a run stops at its limit
    assert "179 held-out images" in result.output.replace("\n    ", " ")
    assert "verdict" not in result.output


def test_on_held_out_data_what_is_judged_outlives_an_error_and_ctrl_c():
    images = torch.eye(4)

    def fit(ailment=None):
        vae = VAE(num_pixels=4, latent_dim=1, hidden=(3,))
        found = svi(Problem(vae.model, images), vae.guide, max_steps=8, compile=False)

        def ail(*_):
            raise ailment

        if ailment is not None:
            vae.encoder.register_forward_pre_hook(ail)
        return found

    failures = {}
    fits = {"ailing": fit(ZeroDivisionError("by hand")), "sound": fit()}
    assert list(compare_held_out(fits, (images,), 0, failures).fits) == ["sound"]
    assert list(failures) == ["ailing"]
    with pytest.raises(KeyboardInterrupt) as info:
        compare_held_out(
            {"sound": fits["sound"], "slow": fit(KeyboardInterrupt())}, (images,), 0, {}
        )
    assert list(info.value.comparison.fits) == ["sound"]
    with pytest.raises(ZeroDivisionError, match="by hand"):
        compare_held_out({"ailing": fits["ailing"]}, (images,), 0, {})
