"""Networks in bfloat16: how far rounding may take them, what stays float32, and training."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from vitools import Problem, svi
from vitools.errors import DataError, OptionError
from vitools.graphs.compiled import find_compiler
from vitools.isolation import isolated, seeded
from vitools.models.conditional_vae import ConditionalVAE
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import VAE, elbo_terms, load
from vitools.models.vae.networks.networks import Encoder

UNIT = 2.0**-9
"""Largest relative error of rounding to bfloat16, which keeps eight bits."""

pytestmark = pytest.mark.usefixtures("float32_by_default")

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]

MODELS = {
    "vae": lambda **o: VAE(64, 3, hidden=(32, 16), **o),
    "convolutional": lambda **o: VAE(64, 3, hidden=(4, 8), network="convolutional", **o),
    "gaussian": lambda **o: VAE(64, 3, hidden=(32,), likelihood="gaussian", **o),
    "hierarchical": lambda **o: HierarchicalVAE(64, (4, 2), ((32,), (16,)), **o),
}


@pytest.fixture
def images():
    return load(seed=0).held_out


@pytest.mark.parametrize("device", DEVICES)
def test_a_linear_decoder_is_as_far_off_as_three_roundings_allow(device):
    full = VAE(64, 20, hidden=(16,), decoder_hidden=(), seed=1).to(device)
    half = VAE(64, 20, hidden=(16,), decoder_hidden=(), seed=1, precision="bf16").to(device)
    with torch.no_grad():
        for model in (full, half):
            model.decoder.network[0].bias.copy_(torch.linspace(-3, 3, 64))
    layer = full.decoder.network[0].double()
    z = torch.randn(500, 20, generator=torch.Generator().manual_seed(0)).to(device)
    exact = layer(z.double())
    # z, W and b are rounded, and then the sum, which itself is taken in float32
    largest = z.double().abs() @ layer.weight.abs().T + layer.bias.abs()
    error = (half.decoder(z).base_dist.logits.double() - exact).abs()
    assert bool((error <= ((1 + UNIT) ** 3 - 1 + 1e-5) * largest).all())
    assert error.max() > UNIT / 10  # it did round


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_bounds_agree_with_those_of_float32_to_the_rounding(name, device, images):
    images = images.to(device)
    make = MODELS[name]
    full = elbo_terms(make().to(device), images, num_samples=8)
    half = elbo_terms(make(precision="bf16").to(device), images, num_samples=8)
    assert half.elbo.dtype == torch.float32
    # Roundings are as often up as down. A bound is a sum of terms with relative errors of a few
    # units; between the two runs' draws, which are the same up to rounding, nothing else differs.
    scale = full.reconstruction.abs() + full.kl.abs()
    difference = half.elbo - full.elbo
    assert bool((difference.abs() <= 4 * UNIT * scale).all())
    assert difference.abs().max() > 0
    mean, error = difference.mean(), difference.std() / len(images) ** 0.5
    assert abs(mean) <= 4 * error + UNIT * scale.mean()


@pytest.mark.parametrize("name", MODELS)
def test_products_and_their_gradients_are_bfloat16_and_densities_float32(name, images):
    model = MODELS[name](precision="bf16")
    networks = [part for part in model.modules() if hasattr(part, "precision")]
    weights = list(model.parameters())

    def gradient(x):
        with seeded(0):
            q = model.encoder(x) if hasattr(model, "encoder") else model.encoder1(x)
            z = q.rsample()
            log_likelihood = model.decoder(z).log_prob(x)
            loss = (q.log_prob(z) - log_likelihood).sum()
        parts = torch.autograd.grad(loss, weights, allow_unused=True)
        return [loss, *(part for part in parts if part is not None)]

    with isolated():  # which also turns off the checks that branch on values
        graph = make_fx(gradient)(images[:20]).graph
    assert len(networks) >= 2
    aten = torch.ops.aten
    products = {
        aten.mm.default,
        aten.addmm.default,
        aten.convolution.default,
        aten.convolution_backward.default,
    }
    densities = {
        aten.log.default,
        aten.exp.default,
        aten.binary_cross_entropy_with_logits.default,
        aten.pow.Tensor_Scalar,
        aten.sum.default,
    }
    kinds = {True: set(), False: set()}
    for node in graph.nodes:
        value = node.meta.get("val")
        value = value[1] if isinstance(value, tuple | list) else value
        if node.target in products:
            kinds[True].add(value.dtype)
        if node.target in densities:
            kinds[False].add(value.dtype)
    assert kinds[True] == {torch.bfloat16}
    assert kinds[False] == {torch.float32}
    loss, *parts = graph_outputs(graph)
    assert {part.meta["val"].dtype for part in (loss, *parts)} == {torch.float32}


def graph_outputs(graph):
    (output,) = [node for node in graph.nodes if node.op == "output"]
    return output.args[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_is_recorded_and_reaches_the_bound_of_float32(device, compile):
    if compile and find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    data = load(seed=0)
    bounds = {}
    for precision in ("full", "bf16"):
        vae = VAE(64, 4, hidden=(64,), seed=0, precision=precision).to(device)
        problem = Problem(vae.model, data.train.to(device), batch_size=100)
        fit = svi(
            problem, vae.guide, learning_rate=3e-3, max_steps=600, compile=compile, seed=0
        )  # a graph that could not be recorded would warn
        assert ("; compiled" in fit.detail) == compile
        assert {p.dtype for p in vae.parameters()} == {torch.float32}
        bounds[precision] = elbo_terms(vae, data.held_out.to(device), num_samples=64).elbo
    difference = bounds["bf16"] - bounds["full"]
    error = difference.std() / len(difference) ** 0.5
    assert abs(difference.mean()) <= 4 * error + UNIT * bounds["full"].abs().mean()


def test_conditional_models_have_it_too(images):
    model = ConditionalVAE(64, 2, precision="bf16")
    conditions = torch.eye(2)[torch.arange(len(images)) % 2]
    assert model.decoder.precision == model.encoder.precision == "bf16"
    assert model.reconstruct(images, conditions).dtype == torch.float32


def test_weights_go_from_one_precision_to_the_other(images):
    full, half = MODELS["vae"](), MODELS["vae"](precision="bf16", seed=5)
    half.load_state_dict(full.state_dict())
    half.set_precision("full")
    assert torch.equal(half.encode(images), full.encode(images))


def test_what_makes_no_sense_is_refused(images):
    with pytest.raises(OptionError, match=r"expected one of \['full', 'bf16'\], got 'fp8'"):
        VAE(64, 3, precision="fp8")
    with pytest.raises(DataError, match=r"is for float32 data and weights, got torch.float64"):
        VAE(64, 3, precision="bf16").double().encode(images.double())
    assert Encoder.precision == "full"
