"""Topics by a VAE beside latent Dirichlet allocation by coordinate ascent.

    python benchmarks/vae_topics.py path/to/bow.npz path/to/vocab.txt [--topics 20]

``bow.npz`` is as in ``cavi_topics.py``; line i of ``vocab.txt`` is word i. Of the documents 200 are held
out and 200 more stop the VAEs' training; LDA is fitted to all the others. Reported are

    perplexity   of held-out documents, by the ELBO and by 200 importance draws from each one's q(θ),
                 topics fixed at their estimate (LDA: their posterior mean)
    NPMI         of each topic's ten likeliest words over the whole corpus, averaged

LDA's q(θ) for a held-out document is the Dirichlet that its coordinate updates converge to.
"""

import argparse
import math
import time

import torch
from cavi_timing import RESULTS, report
from cavi_topics import read_corpus, topics_model
from torch.distributions import Dirichlet

from vitools import Problem, cavi
from vitools.engines.validation import svi_validated
from vitools.isolation import seeded
from vitools.models.topic_vae import TopicVAE, coherence, perplexity
from vitools.models.vae import elbo_terms, importance_weighted_log_likelihood

NUM_DRAWS = 200
VAES = {
    "ProdLDA": {"combination": "product"},
    "mixture": {"combination": "mixture"},
}


def lda(documents, num_topics, sweeps):
    """Topics [K, V], their mean under q, and the seconds it took."""
    document, word = documents.nonzero(as_tuple=True)
    counts = documents[document, word].long()
    words, owners = (part.repeat_interleave(counts) for part in (word, document))
    began = time.perf_counter()
    problem = Problem(topics_model, words, owners, documents.shape, num_topics)
    fit = cavi(problem, max_sweeps=sweeps)
    return fit.mean()["phi"], {"steps": len(fit.history), "s": time.perf_counter() - began}


def lda_bounds(topics, documents, concentration):
    """The ELBO and the importance-weighted bound of each document under LDA with these topics."""
    documents = documents.double()
    alpha = torch.full((len(topics),), concentration, dtype=torch.float64)
    gamma = torch.ones(len(documents), len(topics), dtype=torch.float64)
    for _ in range(200):
        expected = gamma.digamma().exp()  # of log θ, up to a factor that cancels
        gamma = alpha + expected * ((documents / (expected @ topics)) @ topics.mT)
    prior, posterior = Dirichlet(alpha), Dirichlet(gamma)
    draws = []
    with seeded(0):
        for _ in range(NUM_DRAWS):
            weights = posterior.sample()
            likelihood = (documents * (weights @ topics).log()).sum(-1)
            draws.append(likelihood + prior.log_prob(weights) - posterior.log_prob(weights))
    stacked = torch.stack(draws)
    return stacked.mean(0), stacked.logsumexp(0) - math.log(NUM_DRAWS)


def topic_words(topics, vocabulary, scores):
    order = scores.argsort(descending=True).tolist()
    return [
        f"{scores[k]:6.2f}  " + " ".join(vocabulary[i] for i in topics[k].topk(10).indices)
        for k in order
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("vocabulary")
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--sweeps", type=int, default=60)
    options = parser.parse_args()
    matrix, _, _ = read_corpus(options.corpus)
    documents = torch.from_numpy(matrix.toarray()).to(torch.get_default_dtype())
    with open(options.vocabulary) as lines:
        vocabulary = lines.read().split("\n")
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(0))
    held_out, validation, train = (documents[part] for part in order.tensor_split([200, 400]))

    rows, text = [], []

    def add(name, topics, elbo, bound, trained, **more):
        scores = coherence(topics, documents)
        rows.append(
            {
                "fit": name,
                "perplexity, ELBO": perplexity(elbo, held_out),
                "perplexity": perplexity(bound, held_out),
                "NPMI": scores.mean().item(),
                "±": scores.std().item() / math.sqrt(len(scores)),
                **trained,
                **more,
            }
        )
        text.extend(
            [f"{name}, {len(topics)} topics, by NPMI:", *topic_words(topics, vocabulary, scores)]
        )
        report("vae_topics", rows)  # after each fit: the last takes longest
        (RESULTS / "vae_topics.txt").write_text("\n".join(text) + "\n")

    topics, trained = lda(train, options.topics, options.sweeps)
    bounds = lda_bounds(topics, held_out, 1 / options.topics)
    add("LDA by CAVI", topics.to(documents), *bounds, trained)
    for name, kind in VAES.items():
        vae = TopicVAE(documents.shape[1], options.topics, **kind)
        began = time.perf_counter()
        fit = svi_validated(
            Problem(vae.model, train, batch_size=200),
            vae.guide,
            Problem(vae.model, validation),
            every=200,
            patience=3,
            max_steps=options.steps,
            learning_rate=0.01,
            compile=False,
        )
        trained = {"steps": fit.steps[-1], "s": time.perf_counter() - began}
        terms = elbo_terms(vae, held_out)
        bound = importance_weighted_log_likelihood(vae, held_out, num_samples=NUM_DRAWS).value
        add(name, vae.topics(), terms.elbo, bound, trained, KL=terms.kl.mean().item())


if __name__ == "__main__":
    main()
