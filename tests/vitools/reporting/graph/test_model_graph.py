"""The graph read from a model equals the graph a reader would write down from its source."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from vitools.errors import ModelError
from vitools.reporting.graph.extraction import extract
from vitools.reporting.graph.record import DrawnPlate, GraphNode, ModelGraph

Truth = tuple[str, str, str]  # nodes "name:Distribution:role", edges "a>b", plates "p=3:a,b"


def two_dice(rolls: Tensor) -> None:
    pi1 = pyro.sample("pi1", dist.Dirichlet(torch.ones(3)))
    pi2 = pyro.sample("pi2", dist.Dirichlet(torch.ones(4)))
    with pyro.plate("dice", 6):
        rho = pyro.sample("rho", dist.Dirichlet(torch.ones(6)))
    with pyro.plate("rows", rolls.shape[0], dim=-2):
        z1 = pyro.sample("z1", dist.Categorical(pi1))
        z2 = pyro.sample("z2", dist.Categorical(pi2))
        with pyro.plate("throws", rolls.shape[1], dim=-1):
            pyro.sample("rolls", dist.Categorical(rho[z1 + z2]), obs=rolls)


def regression(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, torch.ones(x.shape[1])).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + b, sigma), obs=y)


def eight_schools(y: Tensor, error: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, error), obs=y)


def autoencoder(x: Tensor) -> None:
    weights = torch.linspace(-1, 1, 2 * x.shape[1]).reshape(2, -1)
    with pyro.plate("images", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=torch.tanh(z) @ weights).to_event(1), obs=x)


def topics(words: Tensor) -> None:
    alpha = pyro.sample("alpha", dist.Gamma(1.0, 1.0))
    with pyro.plate("topics", 4):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(9)))
    with pyro.plate("docs", words.shape[1], dim=-1):
        theta = pyro.sample("theta", dist.Dirichlet(alpha * torch.ones(4)))
        with pyro.plate("words", words.shape[0], dim=-2):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(phi[z]), obs=words)


def mixture(x: Tensor) -> None:
    pi = pyro.sample("pi", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("components", 3):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(pi))
        pyro.sample("x", dist.Normal(mu[z], tau[z].rsqrt()), obs=x)


def crossed(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    sigma_a = pyro.sample("sigma_a", dist.HalfNormal(1.0))
    sigma_b = pyro.sample("sigma_b", dist.HalfNormal(1.0))
    rows = pyro.plate("rows", y.shape[0], dim=-2)
    items = pyro.plate("items", y.shape[1], dim=-1)
    with rows:
        a = pyro.sample("a", dist.Normal(0.0, sigma_a))
    with items:
        b = pyro.sample("b", dist.Normal(0.0, sigma_b))
    with rows, items:
        pyro.sample("y", dist.Normal(mu + a + b, 1.0), obs=y)


def chain(x: Tensor) -> None:
    rho = pyro.sample("rho", dist.Beta(2.0, 2.0))
    tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
    z = 0.0
    for t in range(len(x)):
        z = pyro.sample(f"z_{t + 1}", dist.Normal(rho * z, 1.0))
        pyro.sample(f"x_{t + 1}", dist.Normal(z, tau), obs=x[t])


def pairs(x: Tensor) -> None:
    """Thirty sites: site i looks at i // 2, as in a heap."""
    values = [pyro.sample("s1", dist.Normal(0.0, 1.0))]
    for i in range(2, 31):
        observed = x if i > 28 else None
        values.append(pyro.sample(f"s{i}", dist.Normal(values[i // 2 - 1], 1.0), obs=observed))


def single() -> None:
    pyro.sample("theta", dist.Normal(0.0, 1.0))


def three_crossed(y: Tensor) -> None:
    one, two, three = (
        pyro.plate(n, s, dim=d - 3) for d, (n, s) in enumerate(zip("ABC", y.shape, strict=True))
    )
    with one:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with two:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with three:
        c = pyro.sample("c", dist.Normal(0.0, 1.0))
    with one, two:
        ab = pyro.sample("ab", dist.Normal(a + b, 1.0))
    with two, three:
        bc = pyro.sample("bc", dist.Normal(b + c, 1.0))
    with one, three:
        ac = pyro.sample("ac", dist.Normal(a + c, 1.0))
    with one, two, three:
        pyro.sample("y", dist.Normal(ab + bc + ac, 1.0), obs=y)


def _counts() -> tuple[Tensor]:
    return (torch.zeros(12, 5, dtype=torch.long),)


# Arguments are made when they are used, in the dtype of the test.
MODELS: dict[str, tuple[Callable, Callable[[], tuple], Truth]] = {
    "two_dice": (
        two_dice,
        _counts,
        (
            "pi1:Dirichlet pi2:Dirichlet rho:Dirichlet z1:Categorical:latent:discrete "
            "z2:Categorical:latent:discrete rolls:Categorical:observed:discrete",
            "pi1>z1 pi2>z2 z1>rolls z2>rolls rho>rolls",
            "dice=6:rho rows=12:z1,z2,rolls throws=5:rolls",
        ),
    ),
    "regression": (
        regression,
        lambda: (torch.eye(3), torch.zeros(3)),
        ("w:Normal b:Normal sigma:HalfCauchy y:Normal:observed", "w>y b>y sigma>y", "rows=3:y"),
    ),
    "eight_schools": (
        eight_schools,
        lambda: (torch.zeros(8), torch.arange(1.0, 9.0)),
        (
            "mu:Normal tau:HalfCauchy theta:Normal y:Normal:observed",
            "mu>theta tau>theta theta>y",
            "schools=8:theta,y",
        ),
    ),
    "autoencoder": (
        autoencoder,
        lambda: (torch.zeros(6, 4),),
        ("z:Normal x:Bernoulli:observed:discrete", "z>x", "images=6:z,x"),
    ),
    "topics": (
        topics,
        _counts,
        (
            "alpha:Gamma phi:Dirichlet theta:Dirichlet z:Categorical:latent:discrete "
            "w:Categorical:observed:discrete",
            "alpha>theta theta>z z>w phi>w",
            "topics=4:phi docs=5:theta,z,w words=12:z,w",
        ),
    ),
    "mixture": (
        mixture,
        lambda: (torch.zeros(7),),
        (
            "pi:Dirichlet mu:Normal tau:Gamma z:Categorical:latent:discrete x:Normal:observed",
            "pi>z z>x mu>x tau>x",
            "components=3:mu,tau rows=7:z,x",
        ),
    ),
    "crossed": (
        crossed,
        lambda: (torch.zeros(6, 5),),
        (
            "mu:Normal sigma_a:HalfNormal sigma_b:HalfNormal a:Normal b:Normal y:Normal:observed",
            "sigma_a>a sigma_b>b mu>y a>y b>y",
            "rows=6:a,y items=5:b,y",
        ),
    ),
    "chain": (
        chain,
        lambda: (torch.zeros(10),),
        (
            "rho:Beta tau:Gamma "
            + " ".join(f"z_{t}:Normal x_{t}:Normal:observed" for t in range(1, 11)),
            " ".join(f"z_{t}>x_{t} tau>x_{t}" for t in range(1, 11))
            + "".join(f" z_{t}>z_{t + 1} rho>z_{t + 1}" for t in range(1, 10)),
            "",
        ),
    ),
    "pairs": (
        pairs,
        lambda: (torch.tensor(0.0),),
        (
            " ".join(f"s{i}:Normal:{'observed' if i > 28 else 'latent'}" for i in range(1, 31)),
            " ".join(f"s{i // 2}>s{i}" for i in range(2, 31)),
            "",
        ),
    ),
    "single": (single, tuple, ("theta:Normal", "", "")),
    "three_crossed": (
        three_crossed,
        lambda: (torch.zeros(2, 3, 4),),
        (
            "a:Normal b:Normal c:Normal ab:Normal bc:Normal ac:Normal y:Normal:observed",
            "a>ab a>ac b>ab b>bc c>bc c>ac ab>y bc>y ac>y",
            "A=2:a,ab,ac,y B=3:b,ab,bc,y C=4:c,bc,ac,y",
        ),
    ),
}


def _nodes(text: str) -> list[GraphNode]:
    nodes = []
    for word in text.split():
        name, distribution, *more = word.split(":")
        role: Any = more[0] if more else "latent"
        nodes.append(GraphNode(name, distribution, role, "discrete" in more))
    return nodes


def _plates(text: str) -> set[tuple[str, int, frozenset[str]]]:
    found = set()
    for word in text.split():
        name, size, nodes = word.replace("=", ":").split(":")
        found.add((name, int(size), frozenset(nodes.split(","))))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_graph_is_the_one_written_by_hand(name: str) -> None:
    model, args, (nodes, edges, plates) = MODELS[name]
    graph = extract(model, args())
    assert list(graph.nodes) == _nodes(nodes)
    assert sorted(graph.edges) == sorted(tuple(edge.split(">")) for edge in edges.split())
    assert {(p.name, p.size, frozenset(p.nodes)) for p in graph.plates} == _plates(plates)


def test_edges_survive_every_way_of_computing() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        buffer, chosen = torch.zeros(2), torch.zeros(2, dtype=torch.long)
        buffer[0], chosen[1] = a, z
        pyro.sample("written", dist.Normal(buffer.sum() + chosen.sum(), 1.0))
        pyro.sample("as_float", dist.Normal(float(a), 1.0))
        pyro.sample("as_numpy", dist.Normal(torch.as_tensor(a.numpy() + 1), 1.0))
        pyro.sample("only_shape", dist.Normal(torch.zeros_like(a), 1.0))
        late = torch.arange(10.0) < pyro.sample("change", dist.Uniform(0.0, 10.0))
        pyro.sample("threshold", dist.Normal(late.double(), 1.0).to_event(1))
        one_hot = pyro.sample("one_hot", dist.OneHotCategorical(torch.ones(3)))
        flags = pyro.sample("flags", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
        counts = pyro.sample("counts", dist.Multinomial(5, torch.ones(3)))
        number = pyro.sample("number", dist.Poisson(3.0))
        root = pyro.sample("root", dist.LKJCholesky(3, 1.0))
        total = one_hot @ torch.arange(3.0) + flags[0] + counts[1] + number + root[1, 0]
        pyro.factor("penalty", -total)

    graph = extract(model)
    assert graph.parents("written") == ("a", "z")
    assert graph.parents("as_float") == graph.parents("as_numpy") == ("a",)
    assert graph.parents("only_shape") == ()
    assert graph.parents("threshold") == ("change",)
    assert graph.parents("penalty") == ("one_hot", "flags", "counts", "number", "root")
    assert graph.node("penalty").distribution == "factor"


def test_an_observed_value_that_the_model_uses_is_a_parent() -> None:
    def model(y: Tensor) -> None:
        previous = torch.tensor(0.0)
        for t, value in enumerate(y):
            previous = pyro.sample(f"y{t}", dist.Normal(0.5 * previous, 1.0), obs=value)

    graph = extract(model, (torch.arange(3.0),))
    assert graph.edges == (("y0", "y1"), ("y1", "y2"))


def test_deterministic_sites_are_seen_through_unless_asked_for() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        scale = pyro.deterministic("scale", a.exp())
        index = pyro.deterministic("index", 2 - z)
        pyro.sample("b", dist.Normal(torch.arange(3.0)[index], scale))

    assert extract(model).edges == (("a", "b"), ("z", "b"))
    graph = extract(model, deterministic=True)
    assert set(graph.edges) == {("a", "scale"), ("z", "index"), ("scale", "b"), ("index", "b")}
    assert [n.name for n in graph.nodes if n.role == "deterministic"] == ["scale", "index"]
    assert graph.node("index").discrete
    assert not graph.node("scale").discrete


def test_hyperparameters_are_dots_in_the_plates_along_which_they_vary() -> None:
    def model(y: Tensor, error: Tensor) -> None:
        level = pyro.param("level", torch.tensor(1.0))
        unused = pyro.param("unused", torch.tensor(1.0))
        mu = pyro.sample("mu", dist.Normal(level, 5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, 2.0))
            pyro.sample("y", dist.Normal(theta, error), obs=y)
        return unused

    graph = extract(model, (torch.zeros(3), torch.arange(1.0, 4.0)), hyperparameters=True)
    dots = {n.name: n.distribution for n in graph.nodes if n.role in ("constant", "parameter")}
    assert dots == {
        "level": "",
        "mu(scale)": "scale = 5",
        "theta(scale)": "scale = 2",
        "y(scale)": "scale",
    }
    assert graph.plates == (DrawnPlate("schools", 3, ("theta", "y", "y(scale)")),)
    assert {e for e in graph.edges if e[0] in dots} == {
        ("level", "mu"),
        ("mu(scale)", "mu"),
        ("theta(scale)", "theta"),
        ("y(scale)", "y"),
    }


def test_plates_have_their_full_size_and_sequential_ones_are_left_out() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", 100, subsample_size=5) as index:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[index])
        for i in pyro.plate("loop", 2):
            pyro.sample(f"w{i}", dist.Normal(0.0, 1.0))

    graph = extract(model, (torch.zeros(100),))
    assert graph.plates == (DrawnPlate("rows", 100, ("x",)),)


def test_reading_a_graph_changes_nothing_outside() -> None:
    pyro.clear_param_store()
    try:
        kept = pyro.param("kept", torch.tensor(2.0)).detach().clone()
        state = torch.random.get_rng_state()
        validated = torch.distributions.Distribution._validate_args

        def model() -> None:
            pyro.param("made", torch.tensor(1.0))
            pyro.sample("x", dist.Normal(pyro.param("kept"), 1.0))

        graph = extract(model, hyperparameters=True)
        assert ("kept", "x") in graph.edges
        assert list(pyro.get_param_store().keys()) == ["kept"]
        assert torch.equal(pyro.param("kept"), kept)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.distributions.Distribution._validate_args == validated
    finally:
        pyro.clear_param_store()


def test_models_without_a_graph_are_refused() -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(ModelError, match=r"could not be run.*RuntimeError: shapes differ"):
        extract(broken)
    with pytest.raises(ModelError, match=r"no pyro\.sample site"):
        extract(lambda: None)


def test_a_value_at_which_the_model_fails_does_not_hide_its_children() -> None:
    def within(limit: float) -> ModelGraph:
        first: list[Tensor] = []

        def model() -> None:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            first.append(a)
            if (a - first[0]).abs() > limit:
                raise RuntimeError("not positive definite")
            pyro.sample("b", dist.Normal(a, 1.0))

        return extract(model)

    assert within(0.5).edges == (("a", "b"),)
    with pytest.raises(
        ModelError, match=r"site 'a': the model fails at every other value.*definite"
    ):
        within(0.0)
