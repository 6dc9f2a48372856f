"""The models of ``svi_speed.py`` for NumPyro, each as a maker of timed runs."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.autoguide import AutoNormal


def regression(features, target):
    precision = numpyro.sample("precision", dist.Gamma(1.0, 1.0))
    with numpyro.plate("columns", features.shape[1]):
        weights = numpyro.sample("weights", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(target)):
        numpyro.sample("y", dist.Normal(features @ weights, precision**-0.5), obs=target)


def logistic(features, target):
    with numpyro.plate("columns", features.shape[1]):
        weights = numpyro.sample("weights", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(target)):
        numpyro.sample("y", dist.Bernoulli(logits=features @ weights), obs=target)


def schools(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(effects)):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=effects)


def dice(rolls):
    first = numpyro.sample("pi1", dist.Dirichlet(jnp.full(3, 2.0)))
    second = numpyro.sample("pi2", dist.Dirichlet(jnp.full(4, 2.0)))
    with numpyro.plate("dice", 6, dim=-1):
        rho = numpyro.sample("rho", dist.Dirichlet(jnp.ones(6)))
    with numpyro.plate("rows", rolls.shape[0], dim=-2):
        # NumPyro writes into what it is given: each site needs a dictionary of its own
        z1 = numpyro.sample("z1", dist.Categorical(first), infer={"enumerate": "parallel"})
        z2 = numpyro.sample("z2", dist.Categorical(second), infer={"enumerate": "parallel"})
        with numpyro.plate("throws", rolls.shape[1], dim=-1):
            numpyro.sample("rolls", dist.Categorical(rho[z1 + z2]), obs=rolls)


def vae(images, batch):
    def dense(name, rows, columns):
        bound = (6 / (rows + columns)) ** 0.5
        key = jax.random.PRNGKey(len(name) + rows)
        weight = jax.random.uniform(key, (rows, columns), minval=-bound, maxval=bound)
        w = numpyro.param(f"{name}.w", weight)
        return lambda x: x @ w + numpyro.param(f"{name}.b", jnp.zeros(columns))

    def model(images):
        hidden, out = dense("decoder1", 50, 400), dense("decoder2", 400, images.shape[1])
        with numpyro.plate("images", len(images), batch):
            x = numpyro.subsample(images, event_dim=1)
            z = numpyro.sample("z", dist.Normal(jnp.zeros(50), 1.0).to_event(1))
            pixels = dist.Bernoulli(logits=out(jnp.tanh(hidden(z)))).to_event(1)
            numpyro.sample("x", pixels, obs=x)

    def guide(images):
        hidden, out = dense("encoder1", images.shape[1], 400), dense("encoder2", 400, 100)
        with numpyro.plate("images", len(images), batch):
            x = numpyro.subsample(images, event_dim=1)
            mean, log_sd = jnp.split(out(jnp.tanh(hidden(x))), 2, -1)
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_sd)).to_event(1))

    return model, guide, (images,), Trace_ELBO()


def _timed(model: Any, guide: Any, args: Any, elbo: Any, rate: float) -> Callable[..., Any]:
    args = tuple(jnp.asarray(a) for a in args)

    def once(steps: int) -> tuple[Any, float]:
        engine = SVI(model, guide, numpyro.optim.Adam(rate), elbo)
        began = time.perf_counter()
        result = engine.run(jax.random.PRNGKey(0), steps, *args, progress_bar=False)
        losses = result.losses.block_until_ready()
        return losses, time.perf_counter() - began

    def run(steps: int) -> tuple[list[float], list[float]]:
        """The first call compiles; two later ones of different length tell the pace."""
        losses, cold = once(steps)
        pace = (once(5 * steps)[1] - once(steps)[1]) / (4 * steps)
        if pace <= 0:
            raise RuntimeError("too few steps to tell the pace from the compiling")
        bounds = [-float(loss) for loss in losses]
        return bounds, [max(cold - pace * steps, 0.0) + pace * i for i in range(1, steps + 1)]

    return run


def vae_steps(images: Any, batch: int, rate: float) -> Callable[[int], None]:
    """Any number of training steps of the VAE as one compiled loop, going on from the last call."""
    model, guide, args, elbo = vae(jnp.asarray(images), batch)
    engine = SVI(model, guide, numpyro.optim.Adam(rate), elbo)
    state = engine.init(jax.random.PRNGKey(0), *args)

    @jax.jit
    def advance(state, count, *args):
        return jax.lax.fori_loop(0, count, lambda _, s: engine.update(s, *args)[0], state)

    def steps(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(advance(state, count, *args))

    return steps


def _simple(model: Any, elbo: Any) -> Callable[..., Any]:
    return lambda args, rate: _timed(
        model, AutoNormal(numpyro.handlers.block(model, hide=["z1", "z2"])), args, elbo, rate
    )


NUMPYRO: dict[str, Callable[..., Any]] = {
    "regression": _simple(regression, Trace_ELBO()),
    "schools": _simple(schools, Trace_ELBO()),
    "logistic": _simple(logistic, Trace_ELBO()),
    "dice-logistic-normal": _simple(dice, TraceEnum_ELBO(max_plate_nesting=2)),
    "vae": lambda args, rate: _timed(*vae(*args), rate),
}
