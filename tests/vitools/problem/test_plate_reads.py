"""Discrete latents of one plate read in another, summed out: against sums over every assignment."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.ops.indexing import Vindex
from torch import tensor

from vitools import Problem, cavi, exact, explain, nuts, svi
from vitools.errors import ModelError, NotSupportedError
from vitools.guides import AutoMultivariate
from vitools.isolation import seeded

ITEM, ANNOTATOR = tensor([0, 0, 1, 1, 2, 2, 0]), tensor([0, 1, 0, 1, 0, 1, 1])
LABEL = tensor([0, 0, 1, 1, 0, 1, 1])
ERRORS = tensor([[[0.8, 0.2], [0.3, 0.7]], [[0.9, 0.1], [0.2, 0.8]]]).double()
PRIOR, THREE = tensor([0.4, 0.6]).double(), tensor([0.2, 0.3, 0.5]).double()
DATA = tensor([1.5, 0.2, -0.4, 0.9, 0.0, 1.1, 0.3]).double()


def crowd():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(PRIOR))
    with pyro.plate("labels", 7):
        pyro.sample("y", dist.Categorical(ERRORS[ANNOTATOR, c[ITEM]]), obs=LABEL)


def crowd_by_vindex():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(PRIOR))
    with pyro.plate("labels", 7):
        theta = Vindex(ERRORS)[ANNOTATOR, Vindex(c)[..., ITEM]]
        pyro.sample("y", dist.Categorical(theta), obs=LABEL)


def one_by_one():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(THREE))
    for n in range(4):
        pyro.sample(f"y{n}", dist.Normal(c[n % 3].double(), 1.0), obs=DATA[n])


def unpacked():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(THREE))
    for n, own in enumerate(c):
        pyro.sample(f"y{n}", dist.Normal(own.double(), 1.0), obs=DATA[n])


def slices():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(THREE))
    with pyro.plate("rest", 2):
        pyro.sample("y", dist.Normal(c[1:].double(), 1.0), obs=DATA[:2])


def of_a_function():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Bernoulli(PRIOR[0]))
    with pyro.plate("rows", 7):
        loc = (1 - 2 * c)[ITEM] * tensor(0.7).double()
        pyro.sample("y", dist.Normal(loc, 1.0), obs=DATA)


def own_latent_of_each_row():
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(PRIOR))
    with pyro.plate("rows", 4):
        z = pyro.sample("z", dist.Categorical(ERRORS[0][c[ITEM[1:5]]]))
        pyro.sample("y", dist.Normal(z.double() + c[ITEM[1:5]], 1.0), obs=DATA[:4])


def chain_of_reads():
    with pyro.plate("schools", 2):
        s = pyro.sample("s", dist.Categorical(PRIOR))
    with pyro.plate("classes", 3):
        c = pyro.sample("c", dist.Categorical(ERRORS[1][s[tensor([0, 1, 1])]]))
    with pyro.plate("rows", 7):
        pyro.sample("y", dist.Normal(c[ITEM].double(), 1.0), obs=DATA)


def two_plates():
    with pyro.plate("left", 2, dim=-2), pyro.plate("right", 2, dim=-1):
        c = pyro.sample("c", dist.Categorical(PRIOR))
    with pyro.plate("rows", 7):
        pyro.sample("y", dist.Normal(c[ANNOTATOR, LABEL].double(), 1.0), obs=DATA)


def shared_outer_plate():
    with pyro.plate("days", 2, dim=-2):
        with pyro.plate("items", 2, dim=-1):
            c = pyro.sample("c", dist.Categorical(PRIOR))
        with pyro.plate("rows", 3, dim=-1):
            loc = c[:, tensor([0, 1, 0])].double()
            pyro.sample("y", dist.Normal(loc, 1.0), obs=DATA[:6].reshape(2, 3))


def with_a_global_one():
    g = pyro.sample("g", dist.Categorical(PRIOR))
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(ERRORS[0][g]))
    with pyro.plate("rows", 7, dim=-2), pyro.plate("twice", 2, dim=-1):
        loc = (c[ITEM.unsqueeze(-1)] - g).double()
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.stack([DATA, -DATA], -1))


def masked_and_scaled():
    with poutine.scale(scale=0.5):
        with pyro.plate("items", 3):
            c = pyro.sample("c", dist.Categorical(PRIOR))
        with pyro.plate("labels", 7), poutine.mask(mask=DATA > 0):
            pyro.sample("y", dist.Normal(c[ITEM].double(), 1.0), obs=DATA)


READS = [
    crowd, crowd_by_vindex, one_by_one, unpacked, slices, of_a_function, own_latent_of_each_row,
    chain_of_reads, two_plates, shared_outer_plate, with_a_global_one,
]  # fmt: skip


def assignments(model):
    """{site: values} and log p of every assignment of a model without continuous latents."""
    with seeded(0):
        nodes = poutine.trace(model).get_trace().nodes
    latents = {
        name: node
        for name, node in nodes.items()
        if node["type"] == "sample" and not node["is_observed"] and "size" not in vars(node["fn"])
    }
    choices = []
    for node in latents.values():
        support = node["fn"].enumerate_support(expand=False).flatten()
        shape = node["value"].shape
        all_of_it = itertools.product(support, repeat=shape.numel())
        choices.append([torch.stack(values).reshape(shape) for values in all_of_it])
    for values in itertools.product(*choices):
        given = dict(zip(latents, values, strict=True))
        run = poutine.trace(poutine.condition(model, given)).get_trace()
        yield given, float(run.log_prob_sum())


@pytest.mark.parametrize("model", READS, ids=lambda model: model.__name__)
def test_the_evidence_is_the_sum_over_all_assignments(model):
    every = tensor([log_joint for _, log_joint in assignments(model)]).double()
    assert exact(Problem(model)).log_evidence.value == pytest.approx(
        float(every.logsumexp(0)), abs=1e-9
    )


def test_a_common_scale_and_masks_are_kept():
    scaled = exact(Problem(masked_and_scaled)).log_evidence.value
    plain = poutine.scale(masked_and_scaled, 2.0)
    every = tensor([log_joint for _, log_joint in assignments(plain)]).double()
    assert scaled == pytest.approx(0.5 * float(every.logsumexp(0)), abs=1e-9)


@pytest.mark.parametrize("model", [crowd, own_latent_of_each_row, two_plates])
def test_marginals_of_what_is_read(model):
    every = list(assignments(model))
    weights = tensor([log_joint for _, log_joint in every]).double().softmax(0)
    expected = sum(w * given["c"].double() for w, (given, _) in zip(weights, every, strict=True))
    draws = Problem(model).sample_discrete({}, 1, num_samples=4000)["c"].double()
    error = (expected * (1 - expected) / 4000).sqrt()
    assert bool(((draws.mean(0) - expected).abs() <= 4.5 * error).all())


def test_units_are_the_elements_that_are_read():
    """The rows that read one item belong together: one density for each item."""
    problem = Problem(crowd)
    units = problem.pointwise_log_likelihood({})
    assert units["y"].shape == (3,)
    assert problem.unit_plates({})["y"] == ("items",)
    assert float(units["y"].sum()) == pytest.approx(exact(problem).log_evidence.value, abs=1e-9)


def annotators(label):
    prior = pyro.sample("prior", dist.Dirichlet(torch.ones(2).double()))
    with pyro.plate("annotators", 2, dim=-2), pyro.plate("classes", 2, dim=-1):
        theta = pyro.sample("theta", dist.Beta(tensor([1.0, 4.0]).double(), 2.0))
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Categorical(prior))
    with pyro.plate("labels", 7):
        pyro.sample("y", dist.Bernoulli(theta[ANNOTATOR, c[ITEM]]), obs=label)


def test_every_engine_fits_what_annotators_said():
    """Dawid and Skene (1979): the bound lies below the evidence that draws from the prior give."""
    problem = Problem(annotators, LABEL.double())
    assert "theta" in str(explain(problem))
    draws = {k: v for k, v in problem.prior(20_000).items() if k != "c"}
    prior = dist.Beta(tensor([1.0, 4.0]).double(), 2.0).log_prob(draws["theta"]).sum((-1, -2))
    weights = (problem.log_joint(draws) - prior).exp()  # the flat Dirichlet's density is 1
    error = float(weights.std() / 20_000**0.5 / weights.mean())
    evidence = float(weights.mean().log())
    assert evidence - 1.5 < cavi(problem).elbo().value < evidence + 4 * error
    summed = svi(problem, AutoMultivariate, max_steps=64, compile=False).elbo(1000)
    assert summed.value < evidence + 4 * (error + summed.standard_error)
    run = nuts(problem, num_samples=4, num_warmup=4, num_chains=1, compile=False)
    assert run.sample(2, discrete=True)["c"].shape == (2, 3)


def pairs(index):
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Bernoulli(PRIOR[0]))
    with pyro.plate("pairs", 2):
        pyro.sample("y", dist.Normal(c[index] - c[:-1], 1.0), obs=DATA[:2])


def inside_its_own_plate(index):
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Bernoulli(PRIOR[0]))
        pyro.sample("y", dist.Normal(c - 0.5 * c[index], 1.0), obs=DATA[:3])


def pooled(index):
    with pyro.plate("items", 3):
        c = pyro.sample("c", dist.Bernoulli(PRIOR[0]))
    pyro.sample("y", dist.Normal((c[index] * DATA[:2]).sum(-1), 1.0), obs=DATA[0])


@pytest.mark.parametrize(
    ("model", "index"),
    [(pairs, slice(1, None)), (inside_its_own_plate, tensor([1, 2, 0])), (pooled, tensor([0, 1]))],
)
def test_elements_that_a_density_ties_together_are_refused(model, index):
    with pytest.raises((NotSupportedError, ModelError), match=r"'y'.*\bc\b"):
        Problem(model, index).try_enumeration()


@pytest.mark.parametrize("reduce", [torch.any, torch.all, torch.sum], ids=["any", "all", "sum"])
def test_a_reduction_of_a_plate_is_refused(reduce):
    def model():
        with pyro.plate("items", 3):
            c = pyro.sample("c", dist.Bernoulli(tensor(0.3).double()))
        pyro.sample("y", dist.Normal(reduce(c).double(), 1.0), obs=tensor(1.5).double())

    with pytest.raises(ModelError, match="'y' changes when the discrete latents"):
        Problem(model).try_enumeration()


def test_automatic_guides_of_pyro_leave_it_to_the_sum():
    problem = Problem(annotators, LABEL.double())
    guide = AutoNormal(poutine.block(annotators, hide=["c"]))
    assert svi(problem, guide, max_steps=64, compile=False).sample(2)["theta"].shape == (2, 2, 2)
