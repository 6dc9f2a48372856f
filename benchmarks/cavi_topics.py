"""Latent Dirichlet allocation against scikit-learn's batch variational Bayes.

    python benchmarks/cavi_topics.py path/to/bow.npz [--topics 50] [--passes 30] [--sweeps 25]

``bow.npz`` holds a document-term matrix in CSR form (indptr, indices, counts). Both fits are judged
by one function: the bound at the topics found, with each document's weights iterated to
convergence from a flat start. vitools runs with its defaults, and is timed from the built problem,
whose time stands beside it, to the first sweep whose bound is scikit-learn's.
"""

import argparse
import time

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from cavi_timing import report
from sklearn.decomposition import LatentDirichletAllocation

from vitools import Problem, cavi
from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise, restart_inner


def topics_model(words, documents, shape, topics):
    count, vocabulary = shape
    with pyro.plate("topics", topics):
        wide = torch.full((vocabulary,), 1 / topics, dtype=torch.float64)
        phi = pyro.sample("phi", dist.Dirichlet(wide))
    with pyro.plate("documents", count):
        narrow = torch.full((topics,), 1 / topics, dtype=torch.float64)
        theta = pyro.sample("theta", dist.Dirichlet(narrow))
    with pyro.plate("words", len(words)):
        z = pyro.sample("z", dist.Categorical(theta[documents]))
        pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def read_corpus(path):
    """The document-term matrix, and for each token its word and its document."""
    stored = np.load(path)
    shape = (len(stored["indptr"]) - 1, int(stored["indices"].max()) + 1)
    matrix = scipy.sparse.csr_matrix(
        (stored["counts"], stored["indices"], stored["indptr"]), shape=shape
    )
    owner = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    documents = torch.from_numpy(np.repeat(owner, matrix.data)).long()
    words = torch.from_numpy(np.repeat(matrix.indices, matrix.data)).long()
    return matrix, words, documents


def judged_bound(model, concentrations):
    """The bound with q(phi) given and everything else iterated to convergence."""
    model.block_of["phi"].restore((concentrations - 1,))
    restart_inner(model)
    for _ in range(100):
        for name in ("z", "theta"):
            model.update(model.block_of[name])
    return model.elbo()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--topics", type=int, default=50)
    parser.add_argument("--passes", type=int, default=30, help="of scikit-learn")
    parser.add_argument("--sweeps", type=int, default=25, help="of vitools")
    options = parser.parse_args()
    matrix, words, documents = read_corpus(options.corpus)

    start = time.perf_counter()
    theirs = LatentDirichletAllocation(
        options.topics, learning_method="batch", max_iter=options.passes, random_state=0
    ).fit(matrix)
    their_seconds = time.perf_counter() - start

    start = time.perf_counter()
    problem = Problem(topics_model, words, documents, matrix.shape, options.topics)
    built = time.perf_counter() - start
    judge = ConjugateModel(problem.model, problem.args)
    initialise(judge, 0)
    target = judged_bound(judge, torch.from_numpy(theirs.components_).double())

    fit = cavi(problem, max_sweeps=options.sweeps)
    history = fit.history
    rows = zip(history.steps, history.elbo, history.seconds, strict=True)
    hits = [(step, seconds) for step, bound, seconds in rows if bound >= target]
    sweeps, seconds = hits[0] if hits else (history.steps[-1], history.seconds[-1])
    ours = judged_bound(judge, fit.marginal("phi").concentration)
    report(
        "cavi_topics",
        [
            {"fit": "scikit-learn", "passes": options.passes, "s": their_seconds, "bound": target},
            {"fit": "vitools, Problem", "s": built},
            {"fit": "vitools, there", "passes": sweeps, "s": seconds, "reached": bool(hits)},
            {"fit": "vitools, end", "passes": len(history), "s": fit.seconds, "bound": ours},
        ],
    )


if __name__ == "__main__":
    main()
