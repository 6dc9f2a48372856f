"""Topics: documents as mixtures of topics, topics as mixtures of words (latent Dirichlet allocation).

    share_d ~ Dirichlet(½, …, ½)          topics of document d, on the simplex of K
    topic_k ~ Dirichlet(½, …, ½)          words of topic k, on the simplex of V
    z_n ~ Categorical(share_d[n]),   w_n ~ Categorical(topic_z[n])       word n, in document d[n]

A row is a word of a document, with how often it is there if ``count`` is given. Topics may change places, so
of K! equal modes a fit shows one.

Reference: D. Blei, A. Ng, M. Jordan, "Latent Dirichlet allocation", JMLR 3, 2003.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_codes, as_column

SHARE, WORD = 0.5, 0.5
"""Concentrations: few topics a document, few words a topic."""


def model(word: Tensor, document: Tensor, count: Tensor | None = None, topics: int = 4) -> None:
    """Sites: ``share`` [K] in plate *documents*, ``topic`` [V] in plate *topics*; the topics of single
    words are summed out.

    Args:
        word, document: which word stands in which document, [N]: words, or whole numbers.
        count: how often, [N]; once if omitted.
        topics: K.
    """
    if not isinstance(topics, int) or topics < 1:
        raise OptionError(f"topics: expected a positive whole number, got {topics!r}.")
    of, num_documents = as_codes("document", document, len(word), least=1)
    which, num_words = as_codes("word", word, len(of))
    times = (
        torch.ones(len(of), dtype=torch.float64)
        if count is None
        else as_column("count", count, len(of))
    )
    if bool(((times < 0) | (times != times.round())).any()):
        row = int(((times < 0) | (times != times.round())).nonzero()[0])
        raise DataError(
            f"count: {times[row].item():g} in row {row}; expected whole numbers from 0."
        )
    with pyro.plate("documents", num_documents):
        share = pyro.sample("share", dist.Dirichlet(times.new_full((topics,), SHARE)))
    with pyro.plate("topics", topics):
        topic = pyro.sample("topic", dist.Dirichlet(times.new_full((num_words,), WORD)))
    probability = (share[of] * topic.mT[which]).sum(-1)
    pyro.factor("word", (times * probability.log()).sum())


@dataclass(frozen=True)
class Documents:
    """Simulated words [N] and their documents [N], how often each [N], the ``topic`` [K, V] behind them."""

    word: Tensor
    document: Tensor
    count: Tensor
    topic: Tensor


def simulate(num_documents: int = 100, length: int = 60, seed: int = 0) -> Documents:
    """Documents of four topics, each of ten words of its own in a vocabulary of 40."""
    if num_documents < 2 or length < 2:
        raise OptionError(f"expected 2 documents of 2 words, got {num_documents} of {length}.")
    generator = torch.Generator().manual_seed(seed)
    own = torch.arange(40) // 10 == torch.arange(4)[:, None]
    topic = torch.where(own, 0.09, 0.1 / 30).double()
    lead = torch.randint(4, (2, num_documents), generator=generator)
    share = 0.05 + torch.eye(4)[lead[0]] + 0.4 * torch.eye(4)[lead[1]]
    words = torch.multinomial(share.double() @ topic, length, replacement=True, generator=generator)
    table = torch.zeros(num_documents, 40, dtype=torch.float64)
    table.scatter_add_(1, words, torch.ones_like(words, dtype=torch.float64))
    document, word = table.nonzero(as_tuple=True)
    return Documents(word, document, table[document, word], topic)


NAMES = [
    "wind",
    "rain",
    "cloud",
    "storm",
    "snow",
    "frost",
    "sun",
    "thunder",
    "fog",
    "hail",
    "bread",
    "butter",
    "salt",
    "oven",
    "flour",
    "sugar",
    "milk",
    "egg",
    "pepper",
    "rice",
    "goal",
    "match",
    "team",
    "coach",
    "referee",
    "league",
    "ball",
    "score",
    "pitch",
    "fans",
    "court",
    "judge",
    "law",
    "trial",
    "witness",
    "verdict",
    "appeal",
    "jury",
    "crime",
    "lawyer",
]
"""Words for the simulated documents: weather, kitchen, football, law."""


def example(seed: int) -> Example:
    """100 documents of 60 words."""
    documents = simulate(seed=seed)
    words = documents.word.unique().tolist()
    return Example(
        model,
        (documents.word, documents.document, documents.count),
        f"100 documents of 60 words, {len(words)} different ones, 4 topics (simulated)",
        pictures=pictures,
        coords={"topic_dim_0": [NAMES[word] for word in words]},
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The likeliest words of each topic."""
    from vitools.models.pictures import labels_of, plot_leaders

    words = labels_of(posterior, "topic", -1)
    return {"topics": plot_leaders(posterior.mean()["topic"], words, "topic", "probability")}
