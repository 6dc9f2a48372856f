"""Topics by a VAE (ProdLDA): a document's words from a mixture of topics that an encoder finds.

    θ_d                           topic weights of document d, on the simplex of K
    p_d = softmax(b + β θ_d)      "product" of experts         or  Σ_k θ_dk softmax(β_k)   "mixture"
    log p(w_d | θ_d) = Σ_v n_dv log p_dv                       n_dv: how often word v is in d
    q(θ_d | w_d)                  by one encoder from log(1 + n_d)

The mixture with θ ~ Dirichlet(α) is latent Dirichlet allocation, its words summed over topics. The
product adds the topics' logits where the mixture averages their probabilities, so a word may be
likelier in a document than in any one of its topics: topics come out sharper. θ's prior and q are a
row of ``models/vae/latents.py``; the usual one, a logistic normal, has as prior Laplace's likeness of
Dirichlet(α) in the softmax basis, whose log-ratios are those of K independent logits

    x_k ~ Normal(0, 1/α),   θ = softmax(x)

and the KL from q is in closed form. Here p(w | θ) is that of the words in their order, without
multinomial coefficient, so that exp(-Σ_d log p(w_d) / Σ_d N_d) is the perplexity of one word.

The batch normalisation of the paper's decoder is left out: a document's density would depend on
the other documents of its minibatch. References: A. Srivastava, C. Sutton, "Autoencoding
variational inference for topic models", ICLR 2017; P. Hennig, D. Stern, R. Herbrich, T. Graepel,
"Kernel topic models", AISTATS 2012; D. Newman, J. H. Lau, K. Grieser, T. Baldwin, "Automatic
evaluation of topic coherence", NAACL 2010; G. Bouma, "Normalized (pointwise) mutual information in
collocation extraction", GSCL 2009.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from vitools.distributions import LogisticNormal
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models import Example
from vitools.models.vae.base import DeepModel
from vitools.models.vae.latents import LATENTS
from vitools.models.vae.networks import Encoder

SIMPLEX = tuple(name for name, row in LATENTS.items() if row.smallest > 1)
COMBINATIONS = ("product", "mixture")


class Words(TorchDistribution):
    """``lengths`` independent words from one vocabulary, as counts; the density is of their order.

        log p(n) = Σ_v n_v log p_v

    Args:
        log_probabilities: log p, ``batch + (V,)``.
        lengths: number of words of a draw, ``batch``.

    >>> words = Words(torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor(3))
    >>> words.log_prob(torch.tensor([2.0, 1.0, 0.0])).exp()
    tensor(0.0625)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, log_probabilities: Tensor, lengths: Tensor, validate_args: Any = None):
        self.log_probabilities, self.lengths = log_probabilities, lengths
        batch = torch.broadcast_shapes(log_probabilities.shape[:-1], lengths.shape)
        super().__init__(batch, log_probabilities.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Words":
        batch = torch.Size(batch_shape)
        log_probabilities = self.log_probabilities.expand(*batch, *self.event_shape)
        return Words(log_probabilities, self.lengths.expand(batch), self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.log_probabilities).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            probabilities = self.log_probabilities.exp().expand(shape).reshape(-1, shape[-1])
            lengths = self.lengths.expand(shape[:-1]).reshape(-1, 1)
            longest = max(int(lengths.max()), 1)
            words = torch.multinomial(probabilities, longest, replacement=True)
            present = torch.arange(longest, device=words.device) < lengths
            counts = torch.zeros_like(probabilities).scatter_add(
                -1, words, present.to(probabilities)
            )
            return counts.reshape(shape)


class WordDecoder(torch.nn.Module):
    """θ [..., num_topics] and lengths [...] ↦ :class:`Words`; β is [num_words, num_topics]."""

    support = constraints.nonnegative_integer
    expects = "word counts, 0 or more"
    advice = ""

    def __init__(
        self, num_words: int, num_topics: int, combination: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.combination = combination
        self.weight = torch.nn.Parameter(torch.randn(num_words, num_topics, generator=generator))
        if combination == "product":
            self.bias = torch.nn.Parameter(torch.zeros(num_words))

    def forward(self, weights: Tensor, lengths: Tensor) -> Words:
        if self.combination == "product":
            return Words(torch.log_softmax(weights @ self.weight.mT + self.bias, -1), lengths)
        probabilities = weights @ torch.softmax(self.weight, 0).mT
        tiny = torch.finfo(probabilities.dtype).tiny
        return Words(probabilities.clamp(min=tiny).log(), lengths)


class TopicVAE(DeepModel):
    """Topics, and an encoder that gives the weights of a document's topics.

    :param num_words: V, the size of the vocabulary.
    :param num_topics: K.
    :param hidden: hidden-layer sizes of the encoder.
    :param combination: ``"product"`` of experts or ``"mixture"``.
    :param concentration: α of the Dirichlet prior, or of the one that is matched. The product
        needs no small one, its topics' logits find their own scale; and from a wide prior, far
        from where q starts, few topics come to life.
    :param latents: ``"logistic_normal"``, ``"dirichlet"``, ``"stick_kumaraswamy"`` or
        ``"mv_kumaraswamy"``; all but the first have a Dirichlet prior.
    :param seed: of the starting weights; torch's global generator is left alone.

    Data are word counts [num_documents, num_words], of torch's default dtype.

    >>> topics = TopicVAE(num_words=5, num_topics=2, hidden=(4,))
    >>> topics.topics().shape, topics.encode(torch.ones(3, 5)).shape
    (torch.Size([2, 5]), torch.Size([3, 2]))
    """

    rows = "documents"
    decoder: WordDecoder

    def __init__(
        self,
        num_words: int,
        num_topics: int = 20,
        hidden: Sequence[int] = (100, 100),
        *,
        combination: str = "product",
        concentration: float = 1.0,
        latents: str = "logistic_normal",
        seed: int = 0,
    ) -> None:
        super().__init__(num_words)
        if min(num_words, num_topics - 1, *hidden) < 1:
            raise OptionError(
                f"expected at least 1 word, 2 topics and hidden sizes of 1, got {num_words}, "
                f"{num_topics} and {tuple(hidden)}"
            )
        for name, value, choices in (
            ("combination", combination, COMBINATIONS),
            ("latents", latents, SIMPLEX),
        ):
            if value not in choices:
                raise OptionError(f"{name}: expected one of {list(choices)}, got {value!r}")
        if not concentration > 0:
            raise OptionError(f"concentration: expected a number above 0, got {concentration}")
        self.num_topics, self.concentration, self.latents = num_topics, concentration, latents
        generator = torch.Generator().manual_seed(seed)
        self.encoder = Encoder(num_words, num_topics, hidden, generator, latents)
        self.decoder = WordDecoder(num_words, num_topics, combination, generator)

    def model(self, documents: Tensor, batch_size: int | None = None) -> None:
        """p(w, θ) of counts [num_documents, num_words]; a minibatch where a size is given."""
        decoder = self._network("decoder")
        with self._plate(documents, batch_size):
            batch = self._batch(documents)
            weights = pyro.sample("theta", self.prior(documents))
            pyro.sample("words", decoder(weights, batch.sum(-1)), obs=batch)

    def guide(self, documents: Tensor, batch_size: int | None = None) -> None:
        """q(θ | w)."""
        encoder = self._network("encoder")
        with self._plate(documents, batch_size):
            pyro.sample("theta", encoder(self._batch(documents).log1p()))

    def prior(self, like: Tensor) -> Any:
        """p(θ), with the dtype and device of a tensor."""
        concentration = like.new_full((self.num_topics,), self.concentration)
        if self.latents == "logistic_normal":
            return LogisticNormal(torch.zeros_like(concentration), concentration.rsqrt())
        return self.encoder.latents.prior(concentration)

    @torch.no_grad()
    def encode(self, documents: Tensor) -> Tensor:
        """The centre of q(θ | w) for each document, [num_documents, num_topics]."""
        return self.encoder.latents.centre(self.encoder(self.check(documents).log1p()))

    @torch.no_grad()
    def topics(self) -> Tensor:
        """p(v | θ = e_k), the words of each topic alone: [num_topics, num_words]."""
        alone = torch.eye(self.num_topics).to(self.decoder.weight)
        lengths = alone.new_ones(self.num_topics)
        return self.decoder(alone, lengths).log_probabilities.exp()

    @torch.no_grad()
    def simulate(self, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Counts [n, num_words] of documents of given lengths [n], and θ [n, num_topics]."""
        with seeded(seed):
            weights = self.prior(self.decoder.weight).sample(lengths.shape)
            return self.decoder(weights, lengths).sample(), weights


def example(seed: int) -> Example:
    """Four topics of 15 words each, planted in 600 short documents that an LDA draws."""
    planted = TopicVAE(60, 4, combination="mixture", latents="dirichlet", concentration=0.3)
    with torch.no_grad():
        owner = torch.arange(60)[:, None] // 15 == torch.arange(4)
        planted.decoder.weight.copy_(3.0 * owner)
    documents, _ = planted.simulate(torch.full((600,), 60), seed)
    train, validation, held_out = documents.tensor_split([400, 500])
    topics = TopicVAE(60, 4, (64,), seed=seed)
    return Example(
        topics.model,
        (train,),
        "400 documents of 60 words, 4 topics planted in a vocabulary of 60 (simulated)",
        {"batch_size": 100},
        guide=topics.guide,
        learning_rate=1e-2,
        validation=(validation,),
        held_out=(held_out,),
    )


def perplexity(log_probabilities: Tensor, documents: Tensor) -> float:
    """exp(-Σ_d log p(w_d) / Σ_d N_d), of documents with counts [n, num_words] and log p(w_d) [n]."""
    return float((-log_probabilities.sum() / documents.sum()).exp())


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
