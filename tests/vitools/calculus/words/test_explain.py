"""explain() says each update in words."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch

from vitools import Problem
from vitools.calculus.words.explain import explain
from vitools.models import SHIPPED, two_dice


def rows_of(text):
    """``{site: (family, parents, update)}`` of a table whose updates stand on one line."""
    header, *lines = text.splitlines()
    starts = [header.index(word) for word in ("family", "parents", "update")]
    cut = [0, *starts, None]
    cells = [[line[i:j].strip() for i, j in pairwise(cut)] for line in lines]
    return {row[0]: tuple(row[1:]) for row in cells if len(row) == 4}


def normal_mixture(x, size=3):
    w = pyro.sample("w", dist.Dirichlet(torch.ones(size)))
    with pyro.plate("components", size):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", len(x)):
        z = pyro.sample("z", dist.Categorical(w))
        pyro.sample("x", dist.Normal(mu[z], tau[z].rsqrt()), obs=x)


def topics(words, documents, shape, count):
    with pyro.plate("topics", count):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((shape[1],), 0.5)))
    with pyro.plate("documents", shape[0]):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((count,), 0.25)))
    with pyro.plate("words", len(words)):
        z = pyro.sample("z", dist.Categorical(theta[documents]))
        pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def factors(y, size=2):
    tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("factors", size, dim=-2):
        alpha = pyro.sample("alpha", dist.Gamma(1.0, 1.0))
        with pyro.plate("columns", y.shape[1], dim=-1):
            W = pyro.sample("W", dist.Normal(0.0, alpha.rsqrt()))
    with pyro.plate("units", len(y), dim=-2), pyro.plate("scores", size, dim=-1):
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), dim=-2), pyro.plate("cols", y.shape[1], dim=-1):
        pyro.sample("y", dist.Normal(s @ W, tau.rsqrt()), obs=y)


def test_two_dice():
    text = explain(Problem(two_dice.model, two_dice.simulate(num_rows=500, seed=0).rolls))
    rows = rows_of(text)
    rho = "Dirichlet(1 + Σ_rows q(z1) · q(z2) · 1[z1 + z2] · (Σ_throws 1[rolls]))"
    assert rows["rho"] == ("Dirichlet", "-", rho)
    z1 = "softmax(E[log pi1[z1]] + Σ_throws q(z2) · E[log rho[z1 + z2, rolls]])"
    assert rows["z1"] == ("Categorical", "pi1", z1)
    assert "5 of 5 latents have closed-form updates" in text
    assert "q(z1) · q(z2) factorised, their dependence is lost; joint=[('z1', 'z2')]" in text


def test_rows_that_repeat_are_counted():
    data = two_dice.simulate(num_rows=500, seed=0)
    text = explain(Problem(two_dice.model, data.rolls[:, :1]))
    assert text.endswith(" distinct rows of 500 (rows).")
    assert "closed-form updates; data enter as 6 distinct" in text


def test_normal_with_unknown_mean_and_precision():
    def model():
        m = pyro.sample("m", dist.Normal(0.0, 2.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        with pyro.plate("n", 20):
            pyro.sample("y", dist.Normal(m, tau.rsqrt()), obs=torch.ones(20))

    rows = rows_of(explain(Problem(model)))
    assert rows["m"][2] == "Normal with precision P = 0.25 + 20 E[tau] and mean P⁻¹(20 E[tau])"
    assert rows["tau"][2] == "Gamma(12, 11 - 20 E[m] + 10 E[m²])"


def test_regression_is_written_with_its_matrices():
    def model(X, y):
        tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(X @ w, tau.rsqrt()), obs=y)

    X = torch.arange(15.0).reshape(5, 3).sin()
    rows = rows_of(explain(Problem(model, X, torch.tensor([1.0, -1.0, 2.0, 0.0, 0.0]))))
    precision = "Normal with precision P = I + E[tau] · XᵀX and mean P⁻¹(E[tau] · Xᵀy)"
    assert rows["w"] == ("MultivariateNormal", "-", precision)
    assert rows["tau"][2] == "Gamma(3.5, 4 - E[w] · Xᵀy + 0.5 E[w wᵀ] · XᵀX)"


def test_shipped_regression_names_arguments_and_a_precision_for_each_weight():
    example = SHIPPED["regression-ard"].build(0)
    text = rows_of(explain(Problem(example.model, *example.args, **example.kwargs)))
    family, parents, update = text["weights, intercept"]
    assert (family, parents) == ("MultivariateNormal", "relevance")
    assert "P[weights] = diag(E[relevance]) + E[precision] · featuresᵀ features" in update
    assert "P[weights, intercept] = E[precision] · (Σ_rows features)" in update
    assert "h[weights] = E[precision] · featuresᵀ target" in update


def test_sites_that_share_a_factor_share_a_row():
    """exp(-½ xᵀP x + hᵀx) with P and h said site by site."""

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(x @ w + b, 1.0), obs=y)

    x, y = torch.tensor([[1.0, 2.0], [0.0, 1.0], [2.0, 2.0]]), torch.tensor([1.0, 2.0, 4.0])
    assert rows_of(explain(Problem(model, x, y)))["w, b"] == (
        "MultivariateNormal",
        "-",
        "Normal with precision P, P[w] = I + xᵀx, P[b] = 3.25, P[w, b] = Σ_n x, "
        "and mean P⁻¹h, h[w] = xᵀy, h[b] = 7",
    )


def test_a_mixture_of_normals():
    rows = rows_of(explain(Problem(normal_mixture, torch.linspace(-1.0, 2.0, 7))))
    assert rows["w"][2] == "Dirichlet(1 + Σ_n q(z))"
    assert rows["mu"][2] == (
        "Normal with precision P = 0.01 + Σ_n q(z) · E[tau[z]] and mean "
        "P⁻¹(Σ_n q(z) · E[tau[z]] · x)"
    )
    assert rows["tau"][2] == (
        "Gamma(1 + 0.5 Σ_n q(z), 1 + 0.5 Σ_n q(z) · x² - Σ_n q(z) · E[mu[z]] · x "
        "+ 0.5 Σ_n q(z) · E[mu[z]²])"
    )
    assert rows["z"][1] == "w"


def test_a_mixture_of_multivariate_normals():
    def model(x):
        with pyro.plate("components", 2):
            mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
            df = torch.tensor(4.0)
            L = pyro.sample("L", dist.Wishart(df, covariance_matrix=torch.eye(2)))
        with pyro.plate("n", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=L[z]), obs=x)

    rows = rows_of(explain(Problem(model, torch.arange(8.0).reshape(4, 2).cos())))
    assert rows["mu"][2] == (
        "Normal with precision P = I + Σ_n q(z) · E[L[z]] and mean P⁻¹(Σ_n q(z) · E[L[z]] · x)"
    )
    assert rows["L"][2] == (
        "Wishart(ν = D + 2 + Σ_n q(z), V⁻¹ = I + Σ_n q(z) · x xᵀ - 2 Σ_n q(z) · E[mu[z]] · x "
        "+ Σ_n q(z) · E[mu[z] mu[z]ᵀ])"
    )


def test_topics_are_read_at_their_words_and_documents():
    words, documents = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1])
    text = explain(Problem(topics, words, documents, (2, 3), 2))
    rows = rows_of(text)
    assert rows["phi"][2] == "Dirichlet(0.5 + Σ_words q(z) · 1[word])"
    assert rows["theta"][2] == "Dirichlet(0.25 + Σ_words q(z) · 1[documents])"
    assert rows["z"][2] == "softmax(E[log theta[documents, z]] + E[log phi[z, word]])"


def test_principal_components():
    rows = rows_of(explain(Problem(factors, torch.arange(12.0).reshape(4, 3).sin())))
    assert rows["W"] == (
        "MultivariateNormal",
        "alpha",
        "Normal with precision P = diag(E[alpha]) + Σ_rows E[tau] · E[s sᵀ] and mean "
        "P⁻¹(Σ_rows E[tau] · E[s] · y)",
    )
    assert rows["s"][2].startswith("Normal with precision P = I + Σ_cols E[tau] · E[W Wᵀ]")


def test_elements_of_one_vector_are_told_apart():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(w[0] + w[1] * x, 1.0), obs=y)

    x, y = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 1.0, 1.0])
    rows = rows_of(explain(Problem(model, x, y)))  # P = I + ZᵀZ, Z = (1, x): 3, Σ x² = 21, Σ x = 7
    assert rows["w"][2] == (
        "Normal with precision P = I + 3 diag(1[0]) + 21 diag(1[1]) + 7 (1[0] 1[1]ᵀ + 1[1] 1[0]ᵀ) "
        "and mean P⁻¹(5 1[0] + 9 1[1])"
    )


def test_constants_without_a_name_are_numbered_and_described():
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(x)):
            s = pyro.sample("s", dist.Normal(m, 1.0))
            pyro.sample("x", dist.Normal(s * x.cos(), 1.0), obs=x)

    text = explain(Problem(model, torch.tensor([1.0, 2.0, 3.0])))
    assert "P[m] = 4, P[s] = I + diag(data₁²), P[m, s] = -1, and mean P⁻¹h, h[s] = x" in text
    assert "data₁: constants 3 in the density of 'x'" in text.splitlines()


def test_a_prior_that_has_no_single_number_is_called_the_prior():
    def model(x):
        covariance = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        m = pyro.sample("m", dist.MultivariateNormal(torch.zeros(2), covariance))
        with pyro.plate("n", len(x)):
            pyro.sample("x", dist.MultivariateNormal(m, torch.eye(2)), obs=x)

    rows = rows_of(explain(Problem(model, torch.arange(8.0).reshape(4, 2))))
    expected = "Normal with precision P = prior(m) + 4 I and mean P⁻¹(Σ_n x)"
    assert rows["m"][2] == expected


def test_a_minibatch_is_read_at_full_size_and_nothing_is_left_behind():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        m = pyro.sample("m", dist.Normal(0.0, scale))
        with pyro.plate("n", len(x), subsample_size=2) as rows:
            pyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])

    problem = Problem(model, torch.ones(10))
    expected = "m     Normal  -        Normal with precision P = 0.25 + 10 and mean P⁻¹(10)"
    line = explain(problem).splitlines()[1]
    assert line == expected.replace("0.25 + 10", "10.25")
    assert not pyro.get_param_store()
    state = {"params": {"scale": torch.tensor(1.0)}, "constraints": problem.params["constraints"]}
    assert "P = 11 and" in explain(problem.with_params(state))


def test_constants_beside_a_parent_are_data_also_in_the_density_of_a_latent():
    def model(x, t):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(x)):
            s = pyro.sample("s", dist.Normal(slope * t.cos(), 1.0))
            pyro.sample("x", dist.Normal(s, 1.0), obs=x)

    text = explain(Problem(model, torch.arange(3.0), torch.tensor([0.3, 1.0, 2.0])))
    assert "P[s] = 2 I, P[slope, s] = -data₁, and" in rows_of(text)["slope, s"][2]
    assert "data₁: constants 3 in the density of 's'" in text.splitlines()


def test_latents_that_no_factor_ties_are_not_said_to_be_factorised():
    text = explain(Problem(normal_mixture, torch.linspace(-1.0, 2.0, 7)))
    assert "factorised" not in text
