"""The topics that coordinate ascent finds, as words to look at.

    python benchmarks/cavi_topic_words.py path/to/bow.npz path/to/vocab.txt [--topics 10]

Line i of ``vocab.txt`` is word i. A topic's words are its most probable ones; its share is that of
all tokens.
"""

import argparse
import time

import torch
from cavi_timing import RESULTS
from cavi_topics import INNER, read_corpus, topics_model

from vitools.conjugacy import ConjugateModel

INNER_SWEEPS = 10
WARMUP_SWEEPS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("vocabulary")
    parser.add_argument("--topics", type=int, default=10)
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--sweeps", type=int, default=40)
    options = parser.parse_args()
    matrix, words, documents = read_corpus(options.corpus)
    with open(options.vocabulary) as lines:
        vocabulary = lines.read().split("\n")

    start = time.perf_counter()
    arguments = (words, documents, matrix.shape, options.topics)
    model = ConjugateModel(topics_model, arguments, order=[*INNER, "phi"], inner=INNER)
    model.initialise(0)
    for _ in range(WARMUP_SWEEPS):
        model.restart_inner()
        model.sweep(INNER_SWEEPS)
    for _ in range(options.sweeps):
        model.sweep(INNER_SWEEPS)
    seconds = time.perf_counter() - start
    q = model.distributions()
    topics, weights = q["phi"].mean, q["theta"].mean
    tokens = torch.from_numpy(matrix.sum(1)).double().reshape(-1, 1)
    shares = (weights * tokens).sum(0) / tokens.sum()
    text = [
        f"{options.topics} topics of {matrix.shape[0]} documents, {WARMUP_SWEEPS + options.sweeps} sweeps: "
        f"bound {model.elbo():.0f}, {seconds:.0f} s"
    ]
    for topic in shares.argsort(descending=True).tolist():
        best = topics[topic].topk(options.words).indices.tolist()
        text.append(f"{shares[topic]:6.1%}  " + " ".join(vocabulary[word] for word in best))
    print("\n".join(text))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cavi_topic_words.txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
