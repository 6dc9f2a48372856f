"""Topics by a VAE (ProdLDA): a document's words from a mixture of topics that an encoder finds.

    θ_d                           topic weights of document d, on the simplex of K
    p_d = softmax(b + β θ_d)      "product" of experts         or  Σ_k θ_dk softmax(β_k)   "mixture"
    log p(w_d | θ_d) = Σ_v n_dv log p_dv                       n_dv: how often word v is in d
    q(θ_d | w_d)                  by one encoder from log(1 + n_d)

The mixture with θ ~ Dirichlet(α) is latent Dirichlet allocation, its words summed over topics. The
product adds the topics' logits where the mixture averages their probabilities, so a word may be
likelier in a document than in any one of its topics: topics come out sharper. θ's prior and q are a
row of ``models/vae/networks/latents.py``; the usual one, a logistic normal, has as prior Laplace's
likeness of Dirichlet(α) in the softmax basis, whose log-ratios are those of K independent logits

    x_k ~ Normal(0, 1/α),   θ = softmax(x)

and the KL from q is in closed form. Here p(w | θ) is that of the words in their order, without
multinomial coefficient, so that exp(-Σ_d log p(w_d) / Σ_d N_d) is the perplexity of one word.

Trained plainly the product tends to leave topics unused: the KL of a topic is cheap to save before it
is worth anything. The paper keeps all alive by batch normalisation, of the encoder's outputs and of the
decoder's logits, and by Adam with much momentum (β₁ = 0.99); ``normalise=True`` is that, ended by
:meth:`TopicVAE.settle` (see ``models/vae/networks/normalisation.py``). A word's logits then have one
spread for all words, so that b tells the frequent from the rare, and β what a topic changes. Dropout
of θ's weights in training makes each topic say something by itself.

References: A. Srivastava, C. Sutton, "Autoencoding
variational inference for topic models", ICLR 2017; P. Hennig, D. Stern, R. Herbrich, T. Graepel,
"Kernel topic models", AISTATS 2012.
"""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from vitools.distributions import LogisticNormal
from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models import Example
from vitools.models.topic_judgement import led_by
from vitools.models.topic_words import WordDecoder
from vitools.models.vae.base import DeepModel
from vitools.models.vae.networks.latents import LATENTS
from vitools.models.vae.networks.layers import multilayer_perceptron
from vitools.models.vae.networks.networks import Encoder
from vitools.models.vae.networks.normalisation import normalised, refuse_unsettled, settle
from vitools.models.vae.weights import LogWeights

SIMPLEX = tuple(name for name, row in LATENTS.items() if row.smallest > 1)
COMBINATIONS = ("product", "mixture")


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
    :param normalise: batch normalisation; for the product of experts, with a logistic normal. End
        training by :meth:`settle`.
    :param dropout: share of θ's weights that training leaves out at random; with ``normalise``.
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
        normalise: bool = False,
        dropout: float = 0.0,
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
        if normalise and combination != "product":
            raise OptionError("normalise: a mixture's probabilities have no logits to normalise")
        if normalise and latents != "logistic_normal":
            raise OptionError(f"normalise: it goes with latents='logistic_normal', not {latents!r}")
        if dropout and not normalise:
            raise OptionError("dropout: it goes with normalise=True")
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout: expected a share from 0 to below 1, got {dropout}")
        self.num_topics, self.concentration, self.latents = num_topics, concentration, latents
        generator = torch.Generator().manual_seed(seed)
        network = normalised(multilayer_perceptron) if normalise else multilayer_perceptron
        self.encoder = Encoder(num_words, num_topics, hidden, generator, latents, network)
        self.decoder = WordDecoder(
            num_words, num_topics, combination, generator, normalise, dropout
        )

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

    def settle(self, documents: Tensor, seed: int = 0) -> None:
        """Take the statistics of all documents for those of minibatches, and end the training.

        Words' logits are those at one draw of each document's θ. Go on training after ``train()``.
        Until then a fit's own bound is that of its documents taken together, with dropout. Saved
        posteriors keep no statistics: settle again after loading one, or keep ``state_dict()``.
        """

        def run() -> None:
            weights = self.encoder(self.check(documents).log1p()).sample()
            self.decoder(weights, documents.sum(-1))

        with seeded(seed):
            settle(self, run)

    def log_weights(self, *data: Tensor, num_samples: int) -> LogWeights:
        self._refuse_unsettled("the log density")
        return super().log_weights(*data, num_samples=num_samples)

    def _refuse_unsettled(self, what: str) -> None:
        refuse_unsettled(self, what, "model.settle(documents), with those it was trained on")

    @torch.no_grad()
    def encode(self, documents: Tensor) -> Tensor:
        """The centre of q(θ | w) for each document, [num_documents, num_topics]."""
        self._refuse_unsettled("the encoding")
        return self.encoder.latents.centre(self.encoder(self.check(documents).log1p()))

    @torch.no_grad()
    def topics(self) -> Tensor:
        """p(v | θ = e_k), the words of each topic alone: [num_topics, num_words].

        Few documents are of one topic alone; where experts' logits add up, e_k may lie far from any
        θ that the model was trained at. See :meth:`topics_as_led`.
        """
        self._refuse_unsettled("the topics")
        alone = torch.eye(self.num_topics).to(self.decoder.weight)
        lengths = alone.new_ones(self.num_topics)
        return self.decoder(alone, lengths).log_probabilities.exp()

    @torch.no_grad()
    def topics_as_led(self, documents: Tensor) -> Tensor:
        """The mean of p(v | θ_d) over the documents that each topic leads: [num_topics, num_words].

        A document is led by the topic of its largest weight. A topic that leads none has the mean
        over all, weighted by its own weight in each.
        """
        weights = self.encode(documents)
        words = self.decoder(weights, documents.sum(-1)).log_probabilities.exp()
        return led_by(weights, words)

    @torch.no_grad()
    def simulate(self, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Counts [n, num_words] of documents of given lengths [n], and θ [n, num_topics]."""
        self._refuse_unsettled("a simulation")
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
