"""How good topics are: perplexity of held-out documents, coherence of a topic's likeliest words.

References: D. Newman, J. H. Lau, K. Grieser, T. Baldwin, "Automatic evaluation of topic coherence",
NAACL 2010; G. Bouma, "Normalized (pointwise) mutual information in collocation extraction", GSCL
2009.
"""

import torch
from torch import Tensor

from vitools.errors import DataError


def perplexity(log_probabilities: Tensor, documents: Tensor) -> float:
    """exp(-Σ_d log p(w_d) / Σ_d N_d), of documents with counts [n, num_words] and log p(w_d) [n]."""
    return float((-log_probabilities.sum() / documents.sum()).exp())


def led_by(weights: Tensor, words: Tensor) -> Tensor:
    """The mean of p(v | d) over the documents that each topic leads, [num_topics, num_words].

    Args:
        weights: of topics in documents, [num_documents, num_topics]; the largest leads.
        words: p(v | d), [num_documents, num_words].

    >>> led_by(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([[0.5, 0.5], [0.1, 0.9]]))
    tensor([[0.3000, 0.7000],
            [0.1800, 0.8200]])
    """
    leads = torch.nn.functional.one_hot(weights.argmax(-1), weights.shape[-1]).to(weights)
    shares = torch.where(leads.sum(0) > 0, leads, weights)
    return (shares / shares.sum(0)).mT @ words


def coherence(topics: Tensor, documents: Tensor, num_words: int = 10) -> Tensor:
    """Normalised pointwise mutual information of each topic's likeliest words, [num_topics].

        NPMI(v, w) = log(p(v, w) / p(v) p(w)) / -log p(v, w),  averaged over pairs of the words

    with p the share of ``documents`` [n, vocabulary] that hold the word, or both: 1 where words are
    only found together, 0 where independent, -1 where never together.

    >>> documents = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> coherence(torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.4, 0.5]]), documents, num_words=2)
    tensor([ 1., -1.])
    """
    if not 2 <= num_words <= topics.shape[1] or topics.shape[1] != documents.shape[1]:
        raise DataError(
            "expected topics and documents over one vocabulary of at least num_words words, 2 or "
            f"more; got {list(topics.shape)}, {list(documents.shape)} and {num_words}"
        )
    best = topics.topk(num_words).indices
    held = (documents[:, best.flatten()] > 0).to(topics).unflatten(1, best.shape)  # [n, K, words]
    together = torch.einsum("nkv,nkw->kvw", held, held) / len(documents)
    alone = together.diagonal(dim1=1, dim2=2)
    ratio = together.log() - alone.log()[:, :, None] - alone.log()[:, None, :]
    # Both in every document: independent and always together at once; 1, as the limit is.
    score = torch.where(together == 1, torch.ones_like(ratio), ratio / -together.log())
    score = torch.where(together == 0, -torch.ones_like(score), score)
    first, second = torch.triu_indices(num_words, num_words, 1)
    return score[:, first, second].mean(1)
