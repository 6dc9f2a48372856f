"""Hand-derived coordinate ascent for two dice against a row-by-row bound written here."""

from itertools import pairwise

import pytest
import torch
from torch.distributions import Categorical, Dirichlet, kl_divergence

from vitools.errors import OptionError
from vitools.models import two_dice

FACTORISATIONS = ("factorised", "joint")

# Two sides, two sides, two faces, three rolls; published with its best bounds.
COUNTS = ((3, 0), (2, 1), (3, 0), (0, 3), (0, 3), (1, 2), (3, 0))
ROLLS = torch.tensor([[0] * zeros + [1] * ones for zeros, ones in COUNTS])
SMALL = {
    "sides1": 2,
    "sides2": 2,
    "faces": 2,
    "alpha1": (1.2, 0.8),
    "alpha2": (0.7, 1.5),
    "beta": ((1.0, 0.5), (0.6, 1.4), (2.0, 0.9)),
}
MEDIUM = {"sides1": 2, "sides2": 3, "faces": 3, "alpha1": 1.3, "alpha2": 0.9, "beta": 0.7}


def dirichlets(concentrations):
    """The prior or q as torch distributions: π¹, π², and ρ with batch shape [S]."""
    return [Dirichlet(value) for value in concentrations]


def expected_log(concentration):
    total = concentration.sum(-1, keepdim=True)
    return torch.special.digamma(concentration) - torch.special.digamma(total)


def naive_elbo(rolls, prior, q, table):
    """The bound with one q(z¹, z²) [N, D₁, D₂] per row, roll by roll."""
    log_pi1, log_pi2, log_rho = (expected_log(value) for value in q)
    value = torch.zeros((), dtype=torch.float64)
    for row, probabilities in zip(rolls, table, strict=True):
        for i in range(len(log_pi1)):
            for k in range(len(log_pi2)):
                log_p = log_pi1[i] + log_pi2[k]
                for x in row:
                    log_p = log_p + log_rho[i + k, x]
                value = value + probabilities[i, k] * log_p
        value = value + Categorical(probabilities.flatten()).entropy()
    for after, before in zip(dirichlets(q), dirichlets(prior), strict=True):
        value = value - kl_divergence(after, before).sum()
    return value


@pytest.fixture
def state():
    """Data, prior, a random q(π, ρ) and random responsibilities that are no optimum of anything."""
    data = two_dice.simulate(12, 3, **MEDIUM, seed=4)
    rows = two_dice.distinct_rows(data.rolls, 3)
    generator = torch.Generator().manual_seed(0)

    def positive(*shape):
        return torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator) + 0.2

    q = two_dice.Concentrations(positive(2), positive(3), positive(4, 3))
    phi1, phi2 = positive(len(rows.counts), 2), positive(len(rows.counts), 3)
    factorised = two_dice.FactorisedResponsibilities(
        phi1 / phi1.sum(1, keepdim=True), phi2 / phi2.sum(1, keepdim=True)
    )
    other_q = two_dice.Concentrations(positive(2), positive(3), positive(4, 3))
    joint = two_dice.update_rows_joint(rows, other_q)
    return data.rolls, rows, data.prior, q, {"factorised": factorised, "joint": joint}


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_elbo_is_the_row_by_row_bound(state, factorisation):
    rolls, rows, prior, q, responsibilities = state
    given = responsibilities[factorisation]
    expected = naive_elbo(rolls, prior, q, given.table()[rows.row_index])
    actual = two_dice.elbo(rows, prior, q, given)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def assert_maximum(bound, at):
    """A stationary point of ``bound`` that no random step improves."""
    at = at.detach().requires_grad_()
    value = bound(at)
    (gradient,) = torch.autograd.grad(value, at)
    assert gradient.abs().max() < 1e-10
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(3):
            step = size * torch.randn(at.shape, generator=generator, dtype=torch.float64)
            assert bound(at.detach() + step) < value


def test_update_of_z1_maximises(state):
    rolls, rows, prior, q, responsibilities = state
    phi2 = responsibilities["factorised"].phi2
    phi1 = two_dice.update_z1(rows, q, phi2)
    index = rows.row_index

    def bound(logits):
        table = logits.softmax(1)[:, :, None] * phi2[index][:, None, :]
        return naive_elbo(rolls, prior, q, table)

    assert_maximum(bound, phi1[index].log())


def test_update_of_z2_maximises(state):
    rolls, rows, prior, q, responsibilities = state
    phi1 = responsibilities["factorised"].phi1
    phi2 = two_dice.update_z2(rows, q, phi1)
    index = rows.row_index

    def bound(logits):
        table = phi1[index][:, :, None] * logits.softmax(1)[:, None, :]
        return naive_elbo(rolls, prior, q, table)

    assert_maximum(bound, phi2[index].log())


def test_update_of_the_pair_maximises(state):
    """Among all q(z¹, z²) of each row, not only those of the form q(sum) q(throws | sum)."""
    rolls, rows, prior, q, _ = state
    table = two_dice.update_rows_joint(rows, q).table()[rows.row_index]

    def bound(logits):
        return naive_elbo(rolls, prior, q, logits.flatten(1).softmax(1).reshape(table.shape))

    torch.testing.assert_close(table.sum((1, 2)), torch.ones(len(rolls), dtype=torch.float64))
    assert_maximum(bound, table.log())


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
@pytest.mark.parametrize("site", ["alpha1", "alpha2", "beta"])
def test_update_of_globals_maximises(state, factorisation, site):
    rolls, rows, prior, q, responsibilities = state
    given = responsibilities[factorisation]
    updated = two_dice.update_globals(rows, prior, given)
    table = given.table()[rows.row_index]

    def bound(log_concentration):
        moved = q._replace(**{site: log_concentration.exp()})
        return naive_elbo(rolls, prior, moved, table)

    assert_maximum(bound, getattr(updated, site).log())


def naive_cavi(rolls, prior, q, factorisation, num_sweeps):
    """The textbook loop, a row at a time, without collapsing anything."""
    sides1, sides2 = len(prior.alpha1), len(prior.alpha2)
    phi2 = [q.alpha2 / q.alpha2.sum() for _ in rolls]
    bounds = []
    for _ in range(num_sweeps):
        log_pi1, log_pi2, log_rho = (expected_log(value) for value in q)
        alpha1, alpha2, beta = (value.clone() for value in prior)
        tables = []
        for n, row in enumerate(rolls):
            pair = torch.stack(
                [
                    torch.stack([log_rho[i + k, row].sum() for k in range(sides2)])
                    for i in range(sides1)
                ]
            )
            if factorisation == "joint":
                logits = log_pi1[:, None] + log_pi2 + pair
                table = logits.flatten().softmax(0).reshape(sides1, sides2)
            else:
                phi1 = (log_pi1 + pair @ phi2[n]).softmax(0)
                phi2[n] = (log_pi2 + phi1 @ pair).softmax(0)
                table = torch.outer(phi1, phi2[n])
            alpha1 += table.sum(1)
            alpha2 += table.sum(0)
            for i in range(sides1):
                for k in range(sides2):
                    for x in row:
                        beta[i + k, x] += table[i, k]
            tables.append(table)
        q = two_dice.Concentrations(alpha1, alpha2, beta)
        bounds.append(naive_elbo(rolls, prior, q, torch.stack(tables)).item())
    return q, bounds


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_distinct_rows_give_the_row_by_row_ascent(state, factorisation):
    rolls, _, prior, q, _ = state
    fit = two_dice.hand_derived_cavi(
        rolls, **MEDIUM, factorisation=factorisation, init=q, max_sweeps=5
    )
    expected, bounds = naive_cavi(rolls, prior, q, factorisation, 5)
    assert fit.elbo_history == pytest.approx(bounds, abs=1e-10)
    for actual, wanted in zip(fit.concentrations, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_elbo_is_the_monte_carlo_bound(factorisation):
    """E_q[log p(x, π, ρ, z) - log q], latents drawn from q, within 4 standard errors."""
    num_samples = 20_000
    fit = two_dice.hand_derived_cavi(ROLLS, **SMALL, factorisation=factorisation, max_sweeps=3)
    prior = two_dice.prior_concentrations(**SMALL)
    table = fit.responsibilities.table()[fit.row_index].flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = [q.sample((num_samples,)) for q in dirichlets(fit.concentrations)]
        pairs = Categorical(table).sample((num_samples,))
    log_ratio = -Categorical(table).log_prob(pairs).sum(1)
    for draw, p, q in zip(draws, dirichlets(prior), dirichlets(fit.concentrations), strict=True):
        difference = p.log_prob(draw) - q.log_prob(draw)
        log_ratio = log_ratio + (difference.sum(1) if difference.ndim == 2 else difference)
    pi1, pi2, rho = draws
    first, second = pairs // 2, pairs % 2
    log_ratio = log_ratio + pi1.log().gather(1, first).sum(1) + pi2.log().gather(1, second).sum(1)
    draw_index = torch.arange(num_samples)[:, None, None]
    rolled = rho[draw_index, (first + second)[:, :, None], ROLLS]
    log_ratio = log_ratio + rolled.log().sum((1, 2))
    error = log_ratio.std() / num_samples**0.5
    assert error < 0.05
    assert abs(log_ratio.mean() - fit.elbo_history[-1]) < 4 * error


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_elbo_never_falls(factorisation):
    data = two_dice.simulate(200, 4, seed=7)
    for seed in range(20):
        fit = two_dice.hand_derived_cavi(
            data.rolls, factorisation=factorisation, seed=seed, max_sweeps=60
        )
        assert len(fit.elbo_history) == len(fit.seconds)
        assert min(after - before for before, after in pairwise(fit.elbo_history)) > -1e-9


def test_published_bounds():
    """Best of 20 restarts: joint -14.970, factorised -15.207, below the evidence -12.790."""
    best = {}
    for factorisation in FACTORISATIONS:
        fit = two_dice.hand_derived_cavi(ROLLS, **SMALL, factorisation=factorisation, restarts=20)
        assert len(fit.restart_elbos) == 20
        assert fit.elbo_history[-1] == max(fit.restart_elbos)
        assert fit.converged
        best[factorisation] = fit.elbo_history[-1]
    assert best["joint"] == pytest.approx(-14.970, abs=5e-4)
    assert best["factorised"] == pytest.approx(-15.207, abs=5e-4)
    assert best["factorised"] < best["joint"] < two_dice.exact_log_evidence(ROLLS, **SMALL)


def test_the_factorised_gap_is_a_kl_divergence(state):
    """At equal q(π, ρ): joint bound - factorised bound = Σ_n KL(φ¹φ² ‖ best joint)."""
    _, rows, prior, q, responsibilities = state
    factorised, joint = responsibilities["factorised"], two_dice.update_rows_joint(rows, q)
    gap = two_dice.elbo(rows, prior, q, joint) - two_dice.elbo(rows, prior, q, factorised)
    divergence = kl_divergence(
        Categorical(factorised.table().flatten(1)), Categorical(joint.table().flatten(1))
    )
    torch.testing.assert_close(gap, rows.multiplicity @ divergence, rtol=1e-10, atol=1e-12)
    assert gap > 0.1


def test_summing_the_throws_out_gives_a_higher_bound():
    """E_q log p(x | π, ρ) - KL lies above CAVI's joint bound by more than 4 standard errors."""
    fit = two_dice.hand_derived_cavi(ROLLS, **SMALL, factorisation="joint")
    prior = two_dice.prior_concentrations(**SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pi1, pi2, rho = (q.sample((20_000,)) for q in dirichlets(fit.concentrations))
    pairs = pi1[:, :, None] * pi2[:, None, :]
    w = torch.stack([pairs[:, 0, 0], pairs[:, 0, 1] + pairs[:, 1, 0], pairs[:, 1, 1]], 1)
    likelihood = rho[:, :, ROLLS].prod(-1)
    log_likelihood = torch.einsum("rs,rsn->rn", w, likelihood).log().sum(1)
    divergence = sum(
        kl_divergence(q, p).sum()
        for q, p in zip(dirichlets(fit.concentrations), dirichlets(prior), strict=True)
    )
    bound = log_likelihood.mean() - divergence
    error = log_likelihood.std() / len(log_likelihood) ** 0.5
    assert bound - 4 * error > fit.elbo_history[-1]
    assert bound - 4 * error < two_dice.exact_log_evidence(ROLLS, **SMALL)


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_one_visible_die_is_solved_exactly(factorisation):
    """One side each: q is the conjugate posterior and the bound the evidence."""
    options = {"sides1": 1, "sides2": 1, "faces": 2, "beta": [[0.6, 1.4]]}
    fit = two_dice.hand_derived_cavi(ROLLS, **options, factorisation=factorisation)
    counts = torch.tensor(COUNTS, dtype=torch.float64).sum(0)
    before = torch.tensor([0.6, 1.4], dtype=torch.float64)
    after = before + counts
    torch.testing.assert_close(fit.beta_hat[0], after, rtol=1e-14, atol=0)
    evidence = (
        after.lgamma().sum() - after.sum().lgamma() - before.lgamma().sum() + before.sum().lgamma()
    )
    assert fit.elbo_history[-1] == pytest.approx(evidence.item(), abs=1e-10)
    assert two_dice.exact_log_evidence(ROLLS, **options) == pytest.approx(
        evidence.item(), abs=1e-10
    )
    assert fit.converged


def test_with_one_die_certain_both_factorisations_agree():
    options = {"sides1": 1, "sides2": 3, "faces": 2, "init": None, "max_sweeps": 30}
    fits = [
        two_dice.hand_derived_cavi(ROLLS, **options, factorisation=name) for name in FACTORISATIONS
    ]
    assert fits[0].elbo_history == pytest.approx(fits[1].elbo_history, abs=1e-10)


def test_a_flat_bound_alone_does_not_stop():
    """The bound changes by less than the tolerance well before the parameters do."""
    data = two_dice.simulate(300, 4, seed=1)
    tol = 1e-7
    fit = two_dice.hand_derived_cavi(data.rolls, factorisation="joint", tol=tol, max_sweeps=20_000)
    assert fit.converged
    flat = [
        sweep
        for sweep, (before, after) in enumerate(pairwise(fit.elbo_history), start=2)
        if abs(after - before) <= tol * abs(after)
    ]
    assert flat[0] < 0.8 * len(fit.elbo_history)
    again = two_dice.hand_derived_cavi(
        data.rolls, factorisation="joint", init=fit.concentrations, max_sweeps=1
    )
    for new, old in zip(again.concentrations, fit.concentrations, strict=True):
        assert ((new - old).abs() / new).max() <= tol


def test_runs_are_seeded_and_can_be_continued():
    data = two_dice.simulate(100, 4, seed=2)
    before = torch.get_rng_state()
    run = {"factorisation": "joint", "tol": 0.0}
    whole = two_dice.hand_derived_cavi(data.rolls, seed=3, max_sweeps=20, **run)
    half = two_dice.hand_derived_cavi(data.rolls, seed=3, max_sweeps=10, **run)
    rest = two_dice.hand_derived_cavi(data.rolls, init=half.concentrations, max_sweeps=10, **run)
    other = two_dice.hand_derived_cavi(data.rolls, seed=4, max_sweeps=20, **run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        again = two_dice.hand_derived_cavi(data.rolls, seed=3, max_sweeps=20, **run)
    many = two_dice.hand_derived_cavi(data.rolls, seed=3, max_sweeps=20, restarts=3, **run)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.elbo_history == whole.elbo_history
    assert half.elbo_history + rest.elbo_history == whole.elbo_history
    assert other.elbo_history != whole.elbo_history
    assert not whole.converged
    assert many.restart_elbos[0] == whole.elbo_history[-1]
    assert len(set(many.restart_elbos)) == 3


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_nearly_impossible_sides_stay_finite(factorisation):
    """E log π ≈ -1/α = -10 000: its exponential is zero, the update must not divide by it."""
    fit = two_dice.hand_derived_cavi(
        ROLLS,
        sides1=3,
        sides2=3,
        faces=2,
        alpha1=1e-4,
        alpha2=1e-4,
        factorisation=factorisation,
        init=two_dice.Concentrations(
            torch.tensor([1e-4, 5.0, 1e-4]), torch.tensor([1e-4, 1e-4, 7.0]), torch.ones(5, 2)
        ),
        max_sweeps=30,
    )
    assert all(value.isfinite().all() for value in fit.concentrations)
    assert min(after - before for before, after in pairwise(fit.elbo_history)) > -1e-9


@pytest.mark.parametrize("factorisation", FACTORISATIONS)
def test_factors_have_the_shapes_of_the_sites(factorisation):
    data = two_dice.simulate(15, 3, **MEDIUM, seed=1)
    fit = two_dice.model.hand_derived_cavi(data.rolls, **MEDIUM, factorisation=factorisation)
    factors = fit.factors()
    for site in ("pi1", "pi2", "rho"):
        assert factors[site].mean.shape == data.truth[site].shape
    torch.testing.assert_close(
        factors["rho"].mean[1], fit.beta_hat[1] / fit.beta_hat[1].sum(), rtol=1e-12, atol=0
    )
    if factorisation == "joint":
        table = factors["z1", "z2"].probs.reshape(15, 1, 2, 3)
        phi1, phi2 = table.sum(3), table.sum(2)
    else:
        phi1, phi2 = factors["z1"].probs, factors["z2"].probs
        assert factors["z1"].batch_shape == data.truth["z1"].shape
    index = fit.row_index
    torch.testing.assert_close(phi1[:, 0], fit.responsibilities.phi1[index], rtol=1e-12, atol=0)
    torch.testing.assert_close(phi2[:, 0], fit.responsibilities.phi2[index], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factorisation": "both"}, "factorisation: expected one of factorised, joint"),
        ({"max_sweeps": 0}, "max_sweeps: expected a positive integer"),
        ({"restarts": 1.5}, "restarts: expected a positive integer"),
        ({"tol": -1e-3}, "tol: expected a number at least 0"),
        ({"init": (torch.ones(2), torch.ones(3), torch.ones(3, 2))}, r"init: alpha2.*shape \[2\]"),
        ({"init": two_dice.prior_concentrations(**SMALL), "restarts": 2}, "init: one start"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        two_dice.hand_derived_cavi(ROLLS, **SMALL, **options)
