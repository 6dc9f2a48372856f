"""The words of a document given its topics' weights: the likelihood of a topic model.

    p_d = softmax(b + β θ_d)   "product" of experts       or       Σ_k θ_dk softmax(β_k)   "mixture"
    log p(w_d | θ_d) = Σ_v n_dv log p_dv

without multinomial coefficient: the density of the words in their order. In training the product's logits
may be normalised over a minibatch, and weights of θ left out at random (dropout: N. Srivastava et al.,
JMLR 15, 2014).
"""

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from vitools.models.vae.networks.normalisation import Normalisation

SMALL = 0.01


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
        self,
        num_words: int,
        num_topics: int,
        combination: str,
        generator: torch.Generator,
        normalise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.combination, self.dropout = combination, dropout
        self.normalisation = Normalisation(num_words, shift=False) if normalise else None
        # the scale of normalised logits is not that of β, whose steps are the larger the smaller it is
        scale = SMALL if normalise else 1.0
        start = torch.randn(num_words, num_topics, generator=generator)
        self.weight = torch.nn.Parameter(scale * start)
        if combination == "product":
            self.bias = torch.nn.Parameter(torch.zeros(num_words))

    def forward(self, weights: Tensor, lengths: Tensor) -> Words:
        if self.dropout and self.training:
            # by torch.rand, whose noise is drawn outside a recorded graph, unlike torch's dropout
            kept = torch.rand_like(weights) >= self.dropout
            weights = weights * kept / (1 - self.dropout)
        if self.combination == "product":
            logits = weights @ self.weight.mT
            if self.normalisation is not None:
                logits = self.normalisation(logits)
            return Words(torch.log_softmax(logits + self.bias, -1), lengths)
        probabilities = weights @ torch.softmax(self.weight, 0).mT
        tiny = torch.finfo(probabilities.dtype).tiny
        return Words(probabilities.clamp(min=tiny).log(), lengths)
