"""Topics of many documents by minibatches, beside gensim's and scikit-learn's online LDA at equal processor time.

    python benchmarks/large_topics.py [--tokens 100000 1000000] [--topics 10] [--words 1000] [--passes 3]

Documents of 50 words are simulated. ``cavi(batch_rows={"documents": …})`` of ordinary latent Dirichlet allocation
makes so many passes; ``gensim.models.LdaModel`` and scikit-learn's ``partial_fit``, with the same concentrations and
batches, are given at least the processor time that it took, pass after pass. All are judged by one function on 1000
other documents: with the topics at their means the shares of a document are found from one half of its words, and
the perplexity is that of the other half. The truth's own perplexity stands beside them. One thread.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from cavi_timing import report
from torch import Tensor

LENGTH = 50
SHARE, WORD = 0.1, 0.05
HELD_OUT = 1000


def simulate(documents: int, topics: int, vocabulary: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Topics [K, V] and the words of documents [N, 50]."""
    generator = np.random.default_rng(seed)
    beta = generator.dirichlet(np.full(vocabulary, WORD), topics)
    words = np.empty((documents, LENGTH), dtype=np.int64)
    cumulated = beta.cumsum(1)
    for rows in np.array_split(np.arange(documents), max(1, documents // 10_000)):
        shares = generator.dirichlet(np.full(topics, SHARE), len(rows))
        which = (generator.random((len(rows), LENGTH, 1)) > shares.cumsum(1)[:, None]).sum(-1)
        which = which.clip(max=topics - 1)
        level = generator.random(which.shape)
        for topic in range(topics):
            found = np.searchsorted(cumulated[topic], level[which == topic])
            words[
                rows[:, None].repeat(LENGTH, 1)[which == topic], np.nonzero(which == topic)[1]
            ] = found.clip(max=vocabulary - 1)
    return torch.from_numpy(beta), torch.from_numpy(words)


def topics_model(words: Tensor, topics: int, vocabulary: int) -> None:
    one = torch.ones((), dtype=torch.float64)
    with pyro.plate("topics", topics):
        beta = pyro.sample("beta", dist.Dirichlet((WORD * one).expand(vocabulary)))
    with pyro.plate("documents", len(words), dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet((SHARE * one).expand(1, topics)))
        with pyro.plate("words", words.shape[1], dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(beta[z]), obs=words)


def perplexity(beta: Tensor, words: Tensor) -> float:
    """Of the second half of each document, its shares found from the first by coordinate ascent."""
    likely = beta.mT[words]  # [N, L, K]
    seen, unseen = likely[:, : LENGTH // 2], likely[:, LENGTH // 2 :]
    gamma = torch.full((len(words), beta.shape[0]), 1.0, dtype=torch.float64)
    for _ in range(200):
        weight = torch.digamma(gamma).exp()[:, None] * seen
        gamma = SHARE + (weight / weight.sum(-1, keepdim=True)).sum(1)
    share = gamma / gamma.sum(-1, keepdim=True)
    return float((-(unseen @ share[:, :, None]).log().mean()).exp())


def counted(words: Tensor, vocabulary: int) -> scipy.sparse.csr_matrix:
    """Documents by words."""
    rows = np.arange(len(words)).repeat(LENGTH)
    ones = np.ones(words.numel())
    shape = (len(words), vocabulary)
    return scipy.sparse.coo_matrix((ones, (rows, words.numpy().reshape(-1))), shape).tocsr()


def by_vitools(words: Tensor, topics: int, vocabulary: int, batch: int, passes: int) -> Any:
    from vitools import Problem, cavi

    problem = Problem(topics_model, words, topics, vocabulary)
    began = time.process_time()
    fit = cavi(problem, batch_rows={"documents": batch}, hold_out=batch, max_sweeps=passes)
    seconds = time.process_time() - began
    return fit.mean()["beta"], len(fit.history), seconds, fit.detail


def by_gensim(words: Tensor, topics: int, vocabulary: int, batch: int) -> Iterator[Tensor]:
    from gensim.matutils import Sparse2Corpus
    from gensim.models import LdaModel

    corpus = list(Sparse2Corpus(counted(words, vocabulary), documents_columns=False))
    names = {i: str(i) for i in range(vocabulary)}
    model = LdaModel(
        id2word=names, num_topics=topics, chunksize=batch, alpha=[SHARE] * topics, eta=WORD,
        eval_every=None, random_state=0, dtype=np.float64, decay=0.7, passes=1,
    )  # fmt: skip
    while True:
        model.update(corpus)
        yield torch.from_numpy(model.get_topics())


def by_scikit_learn(words: Tensor, topics: int, vocabulary: int, batch: int) -> Iterator[Tensor]:
    from sklearn.decomposition import LatentDirichletAllocation

    matrix = counted(words, vocabulary)
    model = LatentDirichletAllocation(
        topics,
        doc_topic_prior=SHARE,
        topic_word_prior=WORD,
        random_state=0,
        total_samples=len(words),
    )
    while True:
        for start in range(0, len(words), batch):
            model.partial_fit(matrix[start : start + batch])
        found = torch.from_numpy(model.components_)
        yield found / found.sum(1, keepdim=True)


def one_size(tokens: int, topics: int, vocabulary: int, passes: int) -> list[dict[str, Any]]:
    documents = tokens // LENGTH
    truth, words = simulate(documents + HELD_OUT, topics, vocabulary)
    words, others = words[:documents], words[documents:]
    batch = max(100, documents // 50)
    beta, made, seconds, detail = by_vitools(words, topics, vocabulary, batch, passes)
    rows = [
        {"by": "truth", "perplexity": perplexity(truth, others)},
        {
            "by": "vitools",
            "passes": made,
            "CPU seconds": seconds,
            "perplexity": perplexity(beta, others),
        },
    ]
    print(detail, flush=True)
    for name, run in (("gensim", by_gensim), ("scikit-learn", by_scikit_learn)):
        began, made, steps = time.process_time(), 0, run(words, topics, vocabulary, batch)
        for found in steps:
            beta, made, spent = found, made + 1, time.process_time() - began
            if spent >= seconds:
                break
        row = {
            "by": name,
            "passes": made,
            "CPU seconds": spent,
            "perplexity": perplexity(beta, others),
        }
        rows.append(row)
    return [{"tokens": tokens, "documents": documents, **row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--topics", type=int, default=10)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for tokens in options.tokens:
        rows += one_size(tokens, options.topics, options.words, options.passes)
        report("large_topics", rows)


if __name__ == "__main__":
    main()
