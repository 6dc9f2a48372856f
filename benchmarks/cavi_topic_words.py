"""The topics that coordinate ascent finds, as words to look at.

    python benchmarks/cavi_topic_words.py path/to/bow.npz path/to/vocab.txt [--topics 10]

Line i of ``vocab.txt`` is word i. A topic's words are its most probable ones; its share is that of
all tokens.
"""

import argparse

import torch
from cavi_timing import RESULTS
from cavi_topics import read_corpus, topics_model

from vitools import Problem, cavi


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("vocabulary")
    parser.add_argument("--topics", type=int, default=10)
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--sweeps", type=int, default=60)
    options = parser.parse_args()
    matrix, words, documents = read_corpus(options.corpus)
    with open(options.vocabulary) as lines:
        vocabulary = lines.read().split("\n")

    problem = Problem(topics_model, words, documents, matrix.shape, options.topics)
    fit = cavi(problem, max_sweeps=options.sweeps)
    topics, weights = fit.mean()["phi"], fit.mean()["theta"]
    tokens = torch.from_numpy(matrix.sum(1)).double().reshape(-1, 1)
    shares = (weights * tokens).sum(0) / tokens.sum()
    text = [
        f"{options.topics} topics of {matrix.shape[0]} documents, {len(fit.history)} sweeps: "
        f"bound {fit.bound:.0f}, {fit.seconds:.0f} s"
    ]
    for topic in shares.argsort(descending=True).tolist():
        best = topics[topic].topk(options.words).indices.tolist()
        text.append(f"{shares[topic]:6.1%}  " + " ".join(vocabulary[word] for word in best))
    print("\n".join(text))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cavi_topic_words.txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
