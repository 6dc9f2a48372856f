"""Models of groups, tables and mixtures; longer programs, as examples have them."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import (
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.ops.indexing import Vindex
from torch import nn
from torch.distributions import constraints, transforms
from trial import counts, flips, randn, trial

positive, unit = constraints.positive, constraints.unit_interval


@trial(
    "baseball partial-pooling pareto-prior beta-concentrations binomial-counts",
    {"m": (), "kappa": (), "phi": (6,)},
    {"hits": (6,)},
)
def baseball():
    at_bats = torch.tensor([45.0, 45.0, 40.0, 45.0, 38.0, 45.0])
    hits = torch.tensor([18.0, 17.0, 12.0, 9.0, 11.0, 7.0])

    def partially_pooled(at_bats, hits):
        m = pyro.sample("m", dist.Uniform(0.0, 1.0))
        kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
        with pyro.plate("players", len(at_bats)):
            phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
            return pyro.sample("hits", dist.Binomial(at_bats, phi), obs=hits)

    def beta(name, shape, a, b):
        a = pyro.param(f"{name}_a", torch.full(shape, a), constraint=positive)
        b = pyro.param(f"{name}_b", torch.full(shape, b), constraint=positive)
        return pyro.sample(name, dist.Beta(a, b))

    def shifted_log_normal(name):
        loc = pyro.param(f"{name}_loc", torch.tensor(2.0))
        scale = pyro.param(f"{name}_scale", torch.tensor(0.3), constraint=positive)
        above_one = transforms.AffineTransform(1.0, 1.0)
        return pyro.sample(
            name, dist.TransformedDistribution(dist.LogNormal(loc, scale), [above_one])
        )

    def guide(at_bats, hits):
        beta("m", (), 3.0, 8.0)
        shifted_log_normal("kappa")
        with pyro.plate("players", len(at_bats)):
            beta("phi", (len(at_bats),), 5.0, 12.0)

    def average(at_bats, hits):
        return float(hits.sum() / at_bats.sum())

    assert 0.2 < average(at_bats, hits) < 0.4
    assert callable(partially_pooled)
    return partially_pooled, guide, (at_bats, hits)


@trial(
    "admissions mixed-effects correlated-intercepts-slopes cholesky-of-lkj index-of-groups",
    {"intercept": (), "slope": (), "sd": (2,), "corr": (2, 2), "raw": (3, 2)},
    {"admitted": (6,)},
)
def admissions():
    """Applications to departments by sex, with intercepts and slopes that vary together.

    The data are of a university whose departments differ in how many they take; sexes differ in
    where they apply.
    """
    department = torch.tensor([0, 0, 1, 1, 2, 2])
    male = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    applications = torch.tensor([82.0, 10.0, 56.0, 25.0, 32.0, 59.0])
    admitted = torch.tensor([51.0, 8.0, 35.0, 17.0, 12.0, 20.0])

    def model(department, male, applications, admitted):
        intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        sd = pyro.sample("sd", dist.HalfCauchy(2.0).expand([2]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(2, 2.0))
        factor = sd.unsqueeze(-1) * corr
        with pyro.plate("departments", 3):
            raw = pyro.sample("raw", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        effects = (factor @ raw.unsqueeze(-1)).squeeze(-1)
        own = effects[..., department, :]
        logits = intercept + own[..., 0] + (slope + own[..., 1]) * male
        with pyro.plate("rows", len(male)):
            binomial = dist.Binomial(applications, logits=logits)
            pyro.sample("admitted", binomial, obs=admitted)

    guide = AutoGuideList(model)
    guide.append(AutoMultivariateNormal(poutine.block(model, expose=["intercept", "slope"])))
    guide.append(AutoNormal(poutine.block(model, hide=["intercept", "slope"])))

    def rates(applications, admitted):
        return admitted / applications

    def odds(rate):
        return rate / (1 - rate)

    assert bool((odds(rates(applications, admitted)) > 0).all())
    return model, guide, (department, male, applications, admitted)


@trial(
    "spatial conditional-autoregressive precision-matrix neighbourhoods poisson-log-link",
    {"level": (), "tau": (), "field": (5,)},
    {"cases": (5,)},
)
def disease_map():
    def neighbours(size):
        adjacency = torch.zeros(size, size)
        for i in range(size - 1):
            adjacency[i, i + 1] = adjacency[i + 1, i] = 1.0
        return adjacency

    def precision_of(adjacency, alpha):
        degrees = torch.diag(adjacency.sum(-1))
        return degrees - alpha * adjacency

    def model(cases, expected, adjacency):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        tau = pyro.sample("tau", dist.Gamma(4.0, 2.0))
        structure = precision_of(adjacency, 0.9)
        precision = tau.reshape(tau.shape + (1, 1)) * structure
        field = pyro.sample(
            "field", dist.MultivariateNormal(torch.zeros(len(cases)), precision_matrix=precision)
        )
        with pyro.plate("areas", len(cases)):
            rate = expected * (level.unsqueeze(-1) + field).exp()
            pyro.sample("cases", dist.Poisson(rate), obs=cases)

    def guide(cases, expected, adjacency):
        level_loc = pyro.param("level_loc", torch.tensor(0.0))
        level_scale = pyro.param("level_scale", torch.tensor(0.2), constraint=positive)
        pyro.sample("level", dist.Normal(level_loc, level_scale))
        shape = pyro.param("shape", torch.tensor(8.0), constraint=positive)
        speed = pyro.param("speed", torch.tensor(4.0), constraint=positive)
        pyro.sample("tau", dist.Gamma(shape, speed))
        loc = pyro.param("field_loc", torch.zeros(len(cases)))
        root = pyro.param(
            "root", 0.3 * torch.eye(len(cases)), constraint=constraints.lower_cholesky
        )
        pyro.sample("field", dist.MultivariateNormal(loc, scale_tril=root))

    expected = torch.tensor([3.0, 4.0, 2.0, 5.0, 3.0])
    return model, guide, (counts(5), expected, neighbours(5))


@trial(
    "semi-supervised partly-observed-labels classifier-network enumeration two-branches",
    {"mu": (2, 2), "label_u": (4,)},
    {"label_s": (3,), "x_u": (4, 2), "x_s": (3, 2)},
)
def semi_supervised():
    classes = 2

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, classes)

        def forward(self, x):
            return self.linear(x)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = Classifier()

    def emit(name, label, mu, x):
        loc = Vindex(mu)[..., label, :]
        pyro.sample(name, dist.Normal(loc, 0.7).to_event(1), obs=x)

    @config_enumerate
    def model(x_s, label, x_u):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(classes, 2), 2.0).to_event(2))
        prior = torch.full((classes,), 1 / classes)
        with pyro.plate("supervised", len(x_s)):
            known = pyro.sample("label_s", dist.Categorical(prior), obs=label)
            emit("x_s", known, mu, x_s)
        with pyro.plate("unsupervised", len(x_u)):
            unknown = pyro.sample("label_u", dist.Categorical(prior))
            emit("x_u", unknown, mu, x_u)

    @config_enumerate
    def guide(x_s, label, x_u):
        pyro.module("classifier", classifier)
        loc = pyro.param("loc", torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        scale = pyro.param("scale", 0.3 * torch.ones(classes, 2), constraint=positive)
        pyro.sample("mu", dist.Normal(loc, scale).to_event(2))

    x_s = torch.tensor([[-1.0, 0.1], [1.1, 0.0], [0.9, -0.2]])
    return model, guide, (x_s, torch.tensor([0, 1, 1]), randn(4, 2))


@trial(
    "annotators index-into-discrete-plate rows-of-labels hierarchical-ability vindex-read",
    {"prevalence": (2,), "ability": (), "skill": (3,), "truth": (4,)},
    {"label": (9,)},
    is_quick=True,
)
def indexed_annotators():
    item = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3])
    annotator = torch.tensor([0, 1, 0, 2, 1, 2, 0, 1, 2])
    label = torch.tensor([1, 1, 0, 0, 1, 0, 0, 0, 1])

    def confusion(skill):
        """p(label | truth) of one who tells the truth with probability skill."""
        right, wrong = skill, 1 - skill
        return torch.stack([torch.stack([right, wrong], -1), torch.stack([wrong, right], -1)], -2)

    @config_enumerate
    def model(item, annotator, label):
        prevalence = pyro.sample("prevalence", dist.Dirichlet(torch.ones(2)))
        ability = pyro.sample("ability", dist.Normal(1.0, 1.0))
        with pyro.plate("annotators", 3):
            skill = pyro.sample("skill", dist.LogNormal(0.0, 0.5))
        with pyro.plate("items", 4):
            truth = pyro.sample("truth", dist.Categorical(prevalence))
        with pyro.plate("labels", len(label)):
            chance = torch.sigmoid(ability.unsqueeze(-1) * skill)
            table = confusion(chance)
            row = Vindex(table)[..., annotator, truth[item], :]
            pyro.sample("label", dist.Categorical(row), obs=label)

    def guide(item, annotator, label):
        a = pyro.param("a", torch.ones(2), constraint=positive)
        pyro.sample("prevalence", dist.Dirichlet(a))
        loc = pyro.param("ability_loc", torch.tensor(1.0))
        scale = pyro.param("ability_scale", torch.tensor(0.3), constraint=positive)
        pyro.sample("ability", dist.Normal(loc, scale))
        with pyro.plate("annotators", 3):
            where = pyro.param("skill_loc", torch.zeros(3))
            pyro.sample("skill", dist.LogNormal(where, 0.3))

    return model, guide, (item, annotator, label)


@trial(
    "deep-exponential-family gamma-layers mean-parametrisation three-plates matrix-of-counts",
    {"z_top": (4, 2), "w_top": (2, 3), "z_bottom": (4, 3), "w_bottom": (3, 5)},
    {"x": (4, 5)},
)
def gamma_layers():
    alpha_z, alpha_w, beta_w = 0.5, 0.8, 0.6
    widths = {"top": 2, "bottom": 3}

    def model(x):
        rows, columns = x.shape
        with (
            pyro.plate("w_top_rows", widths["top"], dim=-2),
            pyro.plate("w_top_columns", 3, dim=-1),
        ):
            w_top = pyro.sample("w_top", dist.Gamma(alpha_w, beta_w))
        with pyro.plate("w_bottom_rows", 3, dim=-2), pyro.plate("w_columns", columns, dim=-1):
            w_bottom = pyro.sample("w_bottom", dist.Gamma(alpha_w, beta_w))
        data = pyro.plate("data", rows, dim=-2)
        with data, pyro.plate("top", widths["top"], dim=-1):
            z_top = pyro.sample("z_top", dist.Gamma(alpha_z, 1.0))
        with data, pyro.plate("bottom", widths["bottom"], dim=-1):
            mean = (z_top @ w_top).clamp(min=1e-3)
            z_bottom = pyro.sample("z_bottom", dist.Gamma(alpha_z, alpha_z / mean))
        with data, pyro.plate("columns", columns, dim=-1):
            rate = (z_bottom @ w_bottom).clamp(min=1e-3)
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def gamma(name, *shape):
        mean = pyro.param(f"{name}_mean", torch.ones(shape), constraint=positive)
        concentration = pyro.param(f"{name}_shape", 2 * torch.ones(shape), constraint=positive)
        return pyro.sample(name, dist.Gamma(concentration, concentration / mean))

    def guide(x):
        rows, columns = x.shape
        with pyro.plate("w_top_rows", 2, dim=-2), pyro.plate("w_top_columns", 3, dim=-1):
            gamma("w_top", 2, 3)
        with pyro.plate("w_bottom_rows", 3, dim=-2), pyro.plate("w_columns", columns, dim=-1):
            gamma("w_bottom", 3, columns)
        data = pyro.plate("data", rows, dim=-2)
        with data, pyro.plate("top", 2, dim=-1):
            gamma("z_top", rows, 2)
        with data, pyro.plate("bottom", 3, dim=-1):
            gamma("z_bottom", rows, 3)

    return model, guide, (counts(4, 5),)


@trial(
    "sparse-regression interactions regularised-horseshoe half-cauchy-hierarchy inverse-gamma",
    {"tau": (), "slab": (), "lam": (4,), "beta": (4,), "pair": (6,), "sigma": ()},
    {"y": (8,)},
)
def sparse_interactions():
    def pairs_of(x):
        columns = x.shape[-1]
        i, j = torch.triu_indices(columns, columns, offset=1)
        return x[:, i] * x[:, j]

    def shrink(lam, tau, slab):
        square = slab * lam**2 / (slab + tau**2 * lam**2)
        return tau * square.sqrt()

    def model(x, y):
        rows, columns = x.shape
        tau = pyro.sample("tau", dist.HalfCauchy(0.3))
        slab = pyro.sample("slab", dist.InverseGamma(2.0, 2.0))
        with pyro.plate("columns", columns):
            lam = pyro.sample("lam", dist.HalfCauchy(1.0))
            scale = shrink(lam, tau.unsqueeze(-1), slab.unsqueeze(-1))
            beta = pyro.sample("beta", dist.Normal(0.0, scale))
        with pyro.plate("pairs", columns * (columns - 1) // 2):
            pair = pyro.sample("pair", dist.Normal(0.0, 0.1))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        mean = (x * beta.unsqueeze(-2)).sum(-1) + (pairs_of(x) * pair.unsqueeze(-2)).sum(-1)
        with pyro.plate("rows", rows):
            pyro.sample("y", dist.Normal(mean, sigma.unsqueeze(-1)), obs=y)

    start = {
        "tau": torch.tensor(0.3), "slab": torch.tensor(2.0), "lam": torch.ones(4),
        "beta": torch.zeros(4), "pair": torch.zeros(6), "sigma": torch.tensor(0.5),
    }  # fmt: skip
    guide = AutoLowRankMultivariateNormal(model, rank=2, init_loc_fn=init_to_value(values=start))

    def simulated():
        x = randn(8, 4)
        return x, x[:, 0] - 0.5 * x[:, 1] + 0.2 * randn(8, seed=1)

    assert pairs_of(randn(8, 4)).shape == (8, 6)
    return model, guide, simulated()


@trial(
    "hilbert-space-gp basis-functions spectral-density module-with-buffers pyroparam-in-guide",
    {"length": (), "amplitude": (), "weights": (5,), "noise": ()},
    {"y": (9,)},
)
def basis_of_a_process():
    class Basis(PyroModule):
        """Eigenfunctions of the Laplacian on [-ell, ell], weighted by a spectral density."""

        def __init__(self, count, ell):
            super().__init__()
            self.ell = ell
            order = torch.arange(1, count + 1).to(torch.get_default_dtype())
            self.register_buffer("root", order * torch.pi / (2 * ell))

        def features(self, x):
            return torch.sin(self.root * (x.unsqueeze(-1) + self.ell)) / self.ell**0.5

        def spread(self, length, amplitude):
            length, amplitude = length.unsqueeze(-1), amplitude.unsqueeze(-1)
            density = amplitude**2 * (2 * torch.pi) ** 0.5 * length
            return (density * (-0.5 * (length * self.root) ** 2).exp()).sqrt()

    basis = Basis(5, 1.5)

    def model(x, y):
        length = pyro.sample("length", dist.LogNormal(-1.0, 0.5))
        amplitude = pyro.sample("amplitude", dist.LogNormal(0.0, 0.5))
        noise = pyro.sample("noise", dist.LogNormal(-1.0, 0.5))
        weights = pyro.sample("weights", dist.Normal(torch.zeros(5), 1.0).to_event(1))
        scaled = basis.spread(length, amplitude) * weights
        mean = (basis.features(x) @ scaled.unsqueeze(-1)).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, noise.unsqueeze(-1)), obs=y)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = PyroParam(torch.tensor([-1.0, 0.0, -1.0]))
            self.scale = PyroParam(0.2 * torch.ones(3), constraint=positive)
            self.root = PyroParam(0.3 * torch.eye(5), constraint=constraints.lower_cholesky)
            self.centre = PyroParam(torch.zeros(5))

        def forward(self, x, y):
            for i, name in enumerate(("length", "amplitude", "noise")):
                pyro.sample(name, dist.LogNormal(self.loc[i], self.scale[i]))
            pyro.sample("weights", dist.MultivariateNormal(self.centre, scale_tril=self.root))

    x = torch.linspace(-1.0, 1.0, 9)
    return model, Guide(), (x, torch.sin(3 * x) + 0.1 * randn(9))


@trial(
    "hurdle two-part-likelihood masked-rows network-free-logits shared-covariates",
    {"gate": (2,), "slope": (2,), "shape": ()},
    {"any": (8,), "amount": (8,)},
)
def hurdle():
    def design(x):
        return torch.stack([torch.ones_like(x), x], -1)

    def linear(x, coefficients):
        return (design(x) * coefficients.unsqueeze(-2)).sum(-1)

    def model(x, amount):
        gate = pyro.sample("gate", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        shape = pyro.sample("shape", dist.Gamma(4.0, 2.0))
        some = (amount > 0).to(amount.dtype)
        with pyro.plate("rows", len(x)):
            pyro.sample("any", dist.Bernoulli(logits=linear(x, gate)), obs=some)
            with poutine.mask(mask=some.bool()):
                mean = linear(x, slope).exp()
                own = shape.unsqueeze(-1)
                filled = torch.where(some.bool(), amount, torch.ones_like(amount))
                pyro.sample("amount", dist.Gamma(own, own / mean), obs=filled)

    def vector(name):
        loc = pyro.param(f"{name}_loc", torch.zeros(2))
        root = pyro.param(f"{name}_root", 0.3 * torch.eye(2), constraint=constraints.lower_cholesky)
        return pyro.sample(name, dist.MultivariateNormal(loc, scale_tril=root))

    def guide(x, amount):
        vector("gate")
        vector("slope")
        a = pyro.param("a", torch.tensor(6.0), constraint=positive)
        b = pyro.param("b", torch.tensor(3.0), constraint=positive)
        pyro.sample("shape", dist.Gamma(a, b))

    def simulated():
        x = randn(8)
        amount = (0.5 * x + 0.3 * randn(8, seed=1)).exp()
        amount[::3] = 0.0
        return x, amount

    x, amount = simulated()
    assert int((amount == 0).sum()) == 3
    return model, guide, (x, amount)


@trial(
    "softmax-regression matrix-latent to-event-two plate-by-keyword subsampled-rows",
    {"weights": (3, 2), "bias": (3,)},
    {"species": (12,)},
)
def species():
    def logits_of(x, weights, bias):
        scores = (weights.unsqueeze(-3) * x.unsqueeze(-2)).sum(-1)
        return scores + bias.unsqueeze(-2)

    def model(x, species=None, *, batch=6):
        weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
        bias = pyro.sample("bias", dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1))
        with pyro.plate("rows", size=len(x), subsample_size=batch, dim=-1) as rows:
            own = x[rows]
            logits = logits_of(own, weights, bias)
            observed = None if species is None else species[rows]
            pyro.sample("species", dist.Categorical(logits=logits), obs=observed)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.weights_loc = PyroParam(torch.zeros(3, 2), event_dim=2)
            self.weights_scale = PyroParam(0.2 * torch.ones(3, 2), positive, event_dim=2)
            self.bias_loc = PyroParam(torch.zeros(3), event_dim=1)

        @PyroSample
        def weights(self):
            return dist.Normal(self.weights_loc, self.weights_scale).to_event(2)

        @PyroSample
        def bias(self):
            return dist.Normal(self.bias_loc, 0.2).to_event(1)

        def forward(self, x, species=None, *, batch=6):
            return self.weights, self.bias

    def simulated():
        x = randn(12, 2)
        scores = torch.stack([x[:, 0], x[:, 1], -x.sum(-1)], -1)
        return x, scores.argmax(-1)

    x, species = simulated()
    assert logits_of(x, torch.zeros(3, 2), torch.zeros(3)).shape == (12, 3)
    assert bool((species < 3).all())
    return model, Guide(), (x, species)


@trial(
    "handlers condition scale block-in-model lifted-submodel renamed-functions",
    {"base": (), "effect": (), "share": ()},
    {"left": (5,), "right": (5,), "votes": ()},
    is_quick=True,
)
def composed_of_submodels():
    draw = pyro.sample
    here = poutine.scale

    def prior(name, loc):
        return draw(name, dist.Normal(loc, 1.0))

    def likelihood(name, mean, data):
        with pyro.plate(f"{name}_rows", len(data)):
            return draw(name, dist.Normal(mean, 0.5), obs=data)

    def survey(votes, share):
        return draw("votes", dist.Binomial(20, share), obs=votes)

    def everything(left, right, votes):
        base = prior("base", 0.0)
        effect = prior("effect", 0.5)
        share = draw("share", dist.Beta(2, 2))
        with here(scale=0.5):
            likelihood("left", base, left)
        likelihood("right", base + effect, right)
        survey(votes, share)
        pyro.deterministic("total", base + effect)

    def with_votes(left, right):
        votes = torch.tensor(13.0)
        return everything(left, right, votes)

    def guide(left, right):
        with pyro.poutine.trace():
            for name in ("base", "effect"):
                loc = pyro.param(f"{name}_loc", torch.tensor(0.0))
                scale = pyro.param(f"{name}_scale", torch.tensor(0.3), constraint=positive)
                draw(name, dist.Normal(loc, scale))
            a = pyro.param("a", torch.tensor([3.0, 2.0]), constraint=positive)
            draw("share", dist.Beta(a[0], a[1]))

    def means(*data):
        return [float(rows.mean()) for rows in data]

    left, right = randn(5), randn(5, seed=1) + 0.5
    assert len(means(left, right)) == 2
    return with_votes, guide, (left, right)


@trial(
    "truncated transformed-prior independent-of-independent expand-by affine-scale odd-shapes",
    {"cut": (1, 3), "scale": (2, 1, 3)},
    {"y": (2, 4, 3)},
)
def odd_shapes():
    """Nested plates with negative dims, plates of size one, events made twice, a prior by transforms."""

    def cut_prior():
        base = dist.Normal(torch.zeros(3), torch.ones(3))
        above = [transforms.SoftplusTransform(), transforms.AffineTransform(0.5, 2.0)]
        return dist.TransformedDistribution(base, above)

    def model(y):
        groups, rows, columns = y.shape
        with pyro.plate("one", 1, dim=-1):
            cut = pyro.sample("cut", cut_prior().to_event(1))
        with pyro.plate("groups", groups, dim=-2), pyro.plate("one_more", 1, dim=-1):
            base = dist.Gamma(torch.tensor(3.0), torch.tensor(3.0)).expand([groups, 1, columns])
            scale = pyro.sample("scale", base.to_event(1))
        with pyro.plate("groups_again", groups, dim=-2), pyro.plate("rows", rows, dim=-1):
            pyro.sample("y", dist.Normal(cut, scale).to_event(1), obs=y)

    def guide(y):
        groups, _, columns = y.shape
        loc = pyro.param("cut_loc", torch.zeros(1, columns))
        width = pyro.param("cut_width", 0.2 * torch.ones(1, columns), constraint=positive)
        above = [transforms.SoftplusTransform(), transforms.AffineTransform(0.5, 2.0)]
        with pyro.plate("one", 1, dim=-1):
            base = dist.Normal(loc, width)
            pyro.sample("cut", dist.TransformedDistribution(base, above).to_event(1))
        shape = pyro.param("shape", 5 * torch.ones(groups, 1, columns), constraint=positive)
        with pyro.plate("groups", groups, dim=-2), pyro.plate("one_more", 1, dim=-1):
            pyro.sample("scale", dist.Gamma(shape, shape).to_event(1))

    def centred(y):
        return y - y.mean((0, 1))

    data = randn(2, 4, 3) + 2.0
    assert float(centred(data).mean().abs()) < 1e-5
    return model, guide, (data,)


@trial(
    "float32-among-float64 missing-by-mask bernoulli-and-normal mixed-types",
    {"ability": (5, 1), "difficulty": (3,), "noise": ()},
    {"correct": (5, 3), "time": (5, 3)},
)
def answers_and_times():
    def model(correct, time, seen):
        people, questions = correct.shape
        person = pyro.plate("people", people, dim=-2)
        question = pyro.plate("questions", questions, dim=-1)
        with person:
            ability = pyro.sample("ability", dist.Normal(0.0, 1.0).expand([people, 1]))
        with question:
            difficulty = pyro.sample("difficulty", dist.Normal(0.0, 1.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with person, question, poutine.mask(mask=seen):
            gap = ability - difficulty
            pyro.sample("correct", dist.Bernoulli(logits=gap), obs=correct)
            pyro.sample("time", dist.Normal(-0.5 * gap, noise), obs=time)

    def guide(correct, time, seen):
        people, questions = correct.shape
        with pyro.plate("people", people, dim=-2):
            loc = pyro.param("ability_loc", torch.zeros(people, 1))
            pyro.sample("ability", dist.Normal(loc, 0.4))
        with pyro.plate("questions", questions, dim=-1):
            loc = pyro.param("difficulty_loc", torch.zeros(questions))
            pyro.sample("difficulty", dist.Normal(loc, 0.4))
        centre = pyro.param("noise_loc", torch.tensor(-0.5))
        pyro.sample("noise", dist.LogNormal(centre, 0.2))

    def simulated(people, questions):
        gap = randn(people, 1) - randn(questions, seed=1)
        time = -0.5 * gap + 0.3 * randn(people, questions, seed=2)
        return flips(people, questions), time.double()

    correct, time = simulated(5, 3)
    seen = torch.ones(5, 3).bool()
    seen[0, 1] = seen[3, 2] = False
    time[0, 1] = float("nan")
    return model, guide, (correct, time, seen)
