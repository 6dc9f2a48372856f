"""What a condition is worth: conditional VAEs against plain ones, and against one for each class.

    python benchmarks/vae_conditional.py [--packets 4000]

Digits (8×8, binarised): a plain VAE, one that is given the class, and ten separate VAEs, each for the
images of its class, all of the same sizes. Held-out nats per image by 500 importance draws; the
plain one's are of log p(x), the others' of log p(x | class), which the class makes easier by
I(x; class), log 10 at the most. A model with p(x | class) also classifies, by Bayes' theorem.

Wave packets on a line, |ψ|² or Re ψ with noise: a plain VAE with as many latents as the data have
hidden causes, and one that is given the width. What the encoder's means know of position, momentum
and width is their mutual information, by neighbours, with its standard error; |ψ|² tells nothing of
the momentum, and what is given need not be learnt: with a latent less, it is not.

Every model is trained until the bound of validation data has not risen for five looks.
"""

import argparse
import math
import time

import torch
from cavi_timing import report

from vitools import Problem
from vitools.engines.svi.validation import svi_validated
from vitools.information import mutual_information
from vitools.models import wave_packets
from vitools.models.conditional_vae import ConditionalVAE, indicators
from vitools.models.vae import (
    VAE,
    average,
    elbo_terms,
    importance_weighted_log_likelihood,
    load,
)

NUM_VALIDATION = 238


def train(model, train_data, validation_data):
    """Steps on minibatches of 100 until validation stops them; the seconds it took."""
    began = time.perf_counter()
    batch = min(100, len(train_data[0]))
    fit = svi_validated(
        Problem(model.model, *train_data, batch_size=batch),
        model.guide,
        Problem(model.model, *validation_data),
        every=200,
        patience=5,
        learning_rate=3e-3,
        compile=False,
    )
    return {"steps": max(fit.validation), "s": time.perf_counter() - began}


def size(*models):
    return sum(p.numel() for model in models for p in model.parameters())


def digits(latent_dim=8, hidden=(128,)):
    data = load()
    parts = {
        "train": (data.train[NUM_VALIDATION:], data.train_labels[NUM_VALIDATION:]),
        "validation": (data.train[:NUM_VALIDATION], data.train_labels[:NUM_VALIDATION]),
        "held out": (data.held_out, data.held_out_labels),
    }
    given = {k: (images, indicators(labels, 10)) for k, (images, labels) in parts.items()}
    held_out, labels = parts["held out"]
    every = [torch.cat(column) for column in zip(*parts.values(), strict=True)]

    def class_information(model, *all_images):
        return str(mutual_information(model.encode(*all_images), every[1]))

    def of_class(part, label):
        images, its_labels = parts[part]
        return (images[its_labels == label],)

    def row(name, log_likelihood, kl, weights, trained, **more):
        mean, error = average(log_likelihood)
        return {"fit": name, "nats": mean, "±": error, "KL": kl, "weights": weights} | {
            **trained,
            **more,
        }

    plain = VAE(64, latent_dim, hidden)
    trained = train(plain, parts["train"][:1], parts["validation"][:1])
    bound = importance_weighted_log_likelihood(plain, held_out).value
    kl = elbo_terms(plain, held_out).kl.mean().item()
    information = class_information(plain, every[0])
    rows = [row("plain", bound, kl, size(plain), trained, **{"I(z; class)": information})]

    conditional = ConditionalVAE(64, 10, latent_dim, hidden)
    trained = train(conditional, given["train"], given["validation"])
    bounds = class_bounds(lambda c: (conditional, (held_out, c)), len(held_out))
    own = bounds[torch.arange(len(labels)), labels]
    rows.append(
        row(
            "conditional",
            own,
            elbo_terms(conditional, *given["held out"]).kl.mean().item(),
            size(conditional),
            trained,
            **{
                "I(z; class)": class_information(conditional, every[0], indicators(every[1], 10)),
                "classified": accuracy(bounds, labels),
            },
        )
    )
    separate = [VAE(64, latent_dim, hidden, seed=label) for label in range(10)]
    times = [
        train(model, of_class("train", label), of_class("validation", label))
        for label, model in enumerate(separate)
    ]
    total = {key: sum(found[key] for found in times) for key in times[0]}
    bounds = torch.stack(
        [importance_weighted_log_likelihood(model, held_out).value for model in separate], 1
    )
    kl = sum(elbo_terms(separate[c], *of_class("held out", c)).kl.sum() for c in range(10))
    own_separate = bounds[torch.arange(len(labels)), labels]
    rows.append(
        row(
            "ten separate",
            own_separate,
            kl.item() / len(labels),
            size(*separate),
            total,
            classified=accuracy(bounds, labels),
        )
    )
    gain = average(own - own_separate)
    print(f"conditional less separate: {gain.value:.2f} ± {gain.standard_error:.2f} nats an image")
    return rows


def class_bounds(model_given, num_images):
    """log p(x | c) by 500 draws of every image and class, [num_images, 10]."""
    columns = []
    for label in range(10):
        model, data = model_given(indicators(torch.full((num_images,), label), 10))
        columns.append(importance_weighted_log_likelihood(model, *data).value)
    return torch.stack(columns, 1)


def accuracy(bounds, labels):
    """The share of images whose likeliest class is theirs; classes are equally likely beforehand."""
    return (bounds.argmax(1) == labels).double().mean().item()


def packets(num_packets, observable, plain, given):
    """A plain VAE with so many latents, and conditional ones with each of the numbers ``given``."""
    simulated = wave_packets.simulate(num_packets, observable=observable)
    truth = simulated.truth.clone()
    truth[:, 1:] = truth[:, 1:].log()
    width = (truth[:, 2:] - truth[:, 2:].mean()) / truth[:, 2:].std()
    first, second = num_packets // 2, num_packets * 3 // 4
    options = {"hidden": (128, 128), "likelihood": "gaussian"}
    rows = []
    models = [("plain", plain, VAE(64, plain, **options), (simulated.observed,))]
    for latents in given:
        model = ConditionalVAE(64, 1, latents, **options)
        models.append(("given width", latents, model, (simulated.observed, width)))
    for name, num_latents, model, data in models:
        trained = train(model, [d[:first] for d in data], [d[first:second] for d in data])
        held_out = [d[second:] for d in data]
        mean, error = average(importance_weighted_log_likelihood(model, *held_out).value)
        latents = model.encode(*held_out)
        knows = {
            f"I(z; {cause})": str(mutual_information(latents, truth[second:, i]))
            for i, cause in enumerate(wave_packets.TRUTH)
        }
        kl = elbo_terms(model, *held_out).kl.mean().item()
        kind = {"seen": observable, "latents": num_latents, "fit": name}
        rows.append({**kind, "nats": mean, "±": error, "KL": kl, **knows, **trained})
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=4000)
    parser.add_argument("--packets-only", action="store_true", help="leave the digits out")
    options = parser.parse_args()
    if not options.packets_only:
        print(f"log 10 = {math.log(10):.2f} nats")
        report("vae_conditional_digits", digits())
    report(
        "vae_conditional_packets",
        packets(options.packets, "density", 2, (2, 1)) + packets(options.packets, "real", 3, (2,)),
    )


if __name__ == "__main__":
    main()
