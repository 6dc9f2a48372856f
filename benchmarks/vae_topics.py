"""Topics by a VAE beside latent Dirichlet allocation by coordinate ascent.

    python benchmarks/vae_topics.py path/to/bow.npz path/to/vocab.txt [--topics 20] [--only ProdLDA]

``bow.npz`` is as in ``cavi_topics.py``; line i of ``vocab.txt`` is word i. Of the documents 200 are held
out and 200 more stop the training of the plain VAEs; all are fitted to the others. Reported are

    perplexity   of held-out documents, by the ELBO and by 200 importance draws from each one's q(θ),
                 topics fixed at their estimate (LDA: their posterior mean)
    NPMI         of each topic's ten likeliest words over the whole corpus, averaged: the words of a
                 topic alone, p(v | θ = e_k), and those of the training documents that it leads

LDA's q(θ) for a held-out document is the Dirichlet that its coordinate updates converge to. ProdLDA is
trained as its authors do: batch normalisation, dropout, Adam with β₁ = 0.99 and steps of 0.002, 2000
minibatches of 200. ``--only`` fits one, and keeps the other rows of the results.
"""

import argparse
import json
import math
import time

import torch
from cavi_timing import RESULTS, report
from cavi_topics import read_corpus, topics_model
from torch.distributions import Dirichlet

from vitools import Problem, cavi, svi
from vitools.engines.svi.validation import svi_validated
from vitools.isolation import seeded
from vitools.models.topic_judgement import coherence, led_by, perplexity
from vitools.models.topic_vae import TopicVAE
from vitools.models.vae import elbo_terms, importance_weighted_log_likelihood

NUM_DRAWS = 200
VAES = {
    "ProdLDA": {"combination": "product", "normalise": True, "dropout": 0.2},
    "ProdLDA, no dropout": {"combination": "product", "normalise": True},
    "product, plain": {"combination": "product"},
    "mixture": {"combination": "mixture"},
}


def lda(documents, num_topics, sweeps):
    """Topics [K, V] and weights [n, K], their means under q, and the seconds it took."""
    document, word = documents.nonzero(as_tuple=True)
    counts = documents[document, word].long()
    words, owners = (part.repeat_interleave(counts) for part in (word, document))
    began = time.perf_counter()
    problem = Problem(topics_model, words, owners, documents.shape, num_topics)
    fit = cavi(problem, max_sweeps=sweeps)
    mean = fit.mean()
    return mean["phi"], mean["theta"], {"steps": len(fit.history), "s": time.perf_counter() - began}


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


def trained(kind, train, validation, num_topics):
    """A VAE and what its training took."""
    vae = TopicVAE(train.shape[1], num_topics, **kind)
    problem = Problem(vae.model, train, batch_size=200)
    began = time.perf_counter()
    if kind.get("normalise"):
        fit = svi(problem, vae.guide, max_steps=2000, optimizer=as_published, compile=False)
        looks = {len(fit.history): 0.0}
        vae.settle(train)
    else:
        looks = svi_validated(
            problem,
            vae.guide,
            Problem(vae.model, validation),
            every=200,
            patience=3,
            max_steps=4000,
            learning_rate=0.01,
            compile=False,
        ).validation
    return vae, {"steps": max(looks), "s": time.perf_counter() - began}


def as_published(weights):
    return torch.optim.Adam(weights, lr=0.002, betas=(0.99, 0.999))


class Results:
    """The rows so far and each topic's words, written after every fit: the last takes longest."""

    def __init__(self, documents, held_out, vocabulary, only):
        self.documents, self.held_out, self.vocabulary = documents, held_out, vocabulary
        self.rows, self.texts = {}, {}
        if only:
            stored = json.loads((RESULTS / "vae_topics.json").read_text())["rows"]
            self.rows = {row["fit"]: row for row in stored}
            parts = (RESULTS / "vae_topics.txt").read_text().split("\n\n")
            self.texts = {part.partition(":")[0]: part.rstrip("\n") for part in parts}

    def add(self, name, topics, led, elbo, bound, took, **more):
        scores, led_scores = (coherence(x.float(), self.documents) for x in (topics, led))
        self.rows[name] = {
            "fit": name,
            "perplexity, ELBO": perplexity(elbo, self.held_out),
            "perplexity": perplexity(bound, self.held_out),
            "NPMI": scores.mean().item(),
            "±": scores.std().item() / math.sqrt(len(scores)),
            "NPMI as led": led_scores.mean().item(),
            "± as led": led_scores.std().item() / math.sqrt(len(led_scores)),
            **took,
            **more,
        }
        words = topic_words(led, self.vocabulary, led_scores)
        head = f"{name}: words of the documents that each topic leads, by NPMI"
        self.texts[name] = "\n".join([head, *words])
        names = [name for name in ("LDA by CAVI", *VAES) if name in self.rows]
        report("vae_topics", [self.rows[name] for name in names])
        texts = [self.texts[name] for name in names if name in self.texts]
        (RESULTS / "vae_topics.txt").write_text("\n\n".join(texts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("vocabulary")
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    matrix, _, _ = read_corpus(options.corpus)
    documents = torch.from_numpy(matrix.toarray()).to(torch.get_default_dtype())
    with open(options.vocabulary) as lines:
        vocabulary = lines.read().split("\n")
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(0))
    held_out, validation, train = (documents[part] for part in order.tensor_split([200, 400]))
    results = Results(documents, held_out, vocabulary, options.only)

    if options.only in ("", "LDA by CAVI"):
        topics, weights, took = lda(train, options.topics, options.sweeps)
        led = led_by(weights, weights @ topics)
        bounds = lda_bounds(topics, held_out, 1 / options.topics)
        results.add("LDA by CAVI", topics, led, *bounds, took)
    for name, kind in VAES.items():
        if options.only in ("", name):
            vae, took = trained(kind, train, validation, options.topics)
            terms = elbo_terms(vae, held_out)
            bound = importance_weighted_log_likelihood(vae, held_out, num_samples=NUM_DRAWS).value
            topics, led = vae.topics(), vae.topics_as_led(train)
            results.add(name, topics, led, terms.elbo, bound, took, KL=terms.kl.mean().item())


if __name__ == "__main__":
    main()
