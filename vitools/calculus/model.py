"""The conjugate model: blocks of q, the messages between them, coordinate updates and the bound.

With E_q log p multilinear in the expected statistics, the optimal factor of a block has the
coefficients of its statistics as natural parameters (Winn and Bishop 2005), and

    ELBO = Σ_terms + Σ_blocks entropy,       exactly, at any state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.blocks.block import Block, DenseBlock
from vitools.calculus.compiled import CompiledModel
from vitools.calculus.densities.surrogates import SURROGATES
from vitools.calculus.streams.streamed import StreamedBlock

State = list[dict[str, Any]]
# What an update sets in a block; all else in it is fixed when the model is compiled.
VARYING = frozenset({"natural", "moments", "mean", "covariance", "_entropies", "_entropy"})


class ConjugateModel(CompiledModel):
    """A Pyro model whose latents all have closed-form updates.

    What it is made of, and how it is read, :class:`~vitools.calculus.compiled.CompiledModel` says.
    """

    # ---- coordinate ascent ---------------------------------------------------------------

    def messages(
        self, block: Block, *, given: Collection[Block] | None = None
    ) -> dict[Any, Tensor]:
        """The coefficient of each statistic of the block in E_q log p.

        Args:
            given: only terms that hold no other blocks than these; all terms if omitted.
        """
        total: dict[Any, Tensor] = {}
        for link in self.links[block]:
            if given is not None and any(
                other is not block and other not in given for other in self.term_blocks[link.term]
            ):
                continue
            value = link.value()
            total[link.key] = total[link.key] + value if link.key in total else value
        weight = self.weights.get(block)
        return total if weight is None else {key: x / weight for key, x in total.items()}

    @torch.no_grad()
    def update(self, block: Block) -> None:
        """Maximise the bound over one factor; NumericalError where no density does."""
        self._update(block, self.messages(block))
        block.check()

    def _update(self, block: Block, messages: dict[Any, Tensor]) -> None:
        if self.together is not None and isinstance(block, DenseBlock) and self.is_shared(block):
            block.restore(self._target(block, messages))
        else:
            block.update(messages)

    def _target(self, block: DenseBlock, messages: dict[Any, Tensor]) -> tuple[Tensor, ...]:
        """The natural parameters of the factor's optimum given all others."""
        found = block.gathered(messages)
        if self.together is None or not self.is_shared(block):
            return found
        return self.together(found)

    @torch.no_grad()
    def sweep(self, step: float = 1.0, *, every: bool = False) -> None:
        """Update every block once. What is not a density makes the bound nan.

        With a ``step`` below 1 the Gaussian factors under curved functions go but a part of their
        way, in natural parameters; with ``every`` all factors but discrete ones, which is a step of
        a stochastic natural gradient where the terms are those of random draws (Hoffman et al. 2013).
        """
        for block in self.order:
            messages = self.messages(block)
            partial = block in self.damped or (every and _is_continuous(block))
            if step < 1 and partial:
                assert isinstance(block, DenseBlock)
                pairs = zip(block.natural, self._target(block, messages), strict=True)
                block.restore(tuple(a + step * (b - a) for a, b in pairs))
            else:
                self._update(block, messages)

    @torch.no_grad()
    def inner_sweep(self) -> None:
        """Update the inner blocks once, less the sums that only other blocks ask for.

        A full sweep must follow before the bound is asked for.
        """
        for block in self.inner:
            if isinstance(block, StreamedBlock):
                block.update(self.messages(block), self._idle[block])
            else:
                self._update(block, self.messages(block))

    def elbo(self) -> float:
        """E_q log p - E_q log q, exactly."""
        return float(self.bound())

    @torch.no_grad()
    def bound(self) -> Tensor:
        """The ELBO as a tensor without axes."""
        return self._of_all(self._summed_up())

    def _of_all(self, number: Tensor) -> Tensor:
        return number if self.together is None else self.together((number,))[0]

    @torch.enable_grad()
    def bound_of_values(self) -> Tensor:
        """The same with its gradient with respect to what the constants were computed from.

        By the envelope theorem it is the gradient of the bound's maximum over q where q is optimal.
        """
        self.moving.changed()  # what was computed before has no gradient
        found = {part: part.moments_of_values(self.messages(part)) for part in self.parts}
        return self._summed_up(found)

    def _summed_up(self, found: Mapping[Block, dict[Any, Tensor]] | None = None) -> Tensor:
        total = self._constant
        for block in self.parts:
            owned: dict[Any, Tensor] = {}
            for link in self.links[block]:
                if self._owners[link.term] is block and link.key not in SURROGATES:
                    value = link.value()
                    owned[link.key] = owned[link.key] + value if link.key in owned else value
            moments = block.moments | (found or {}).get(block, {})
            for key, value in owned.items():
                total = total + (value * self._weighted(block, moments[key])).sum()
            entropy = self._weighted(block, block.entropies()).sum()
            total = total + self.weights.get(block, 1.0) * entropy
        return total

    @torch.no_grad()
    def size(self) -> Tensor:
        """The sum of the absolute values of all that the bound adds up: what its rounding scales with.

        Every message to a block counts, since its entropy is A(η) - η·μ.
        """
        total = self._constant.abs()
        for block in self.parts:
            for link in self.links[block]:
                if link.key in SURROGATES:
                    continue
                part = link.value() * block.moments[link.key]
                total = total + self._weighted(block, part).abs().sum()
            total = total + self._weighted(block, block.entropies()).abs().sum()
        return self._of_all(total)

    def _weighted(self, block: Block, tensor: Tensor) -> Tensor:
        """Times the multiplicity of each row, for a block inside a collapsed plate."""
        for axis, plate in enumerate(block.batch_plates):
            if plate is not None and plate in self.rows:
                view = [1] * tensor.dim()
                view[axis] = -1
                tensor = tensor * self.rows[plate].multiplicity.reshape(view)
        return tensor

    # ---- state -----------------------------------------------------------------------------

    def state(self) -> State:
        """The state of q, to come back to (updates make new tensors, so this copies nothing)."""
        state: State = [
            {name: value for name, value in vars(block).items() if name in VARYING}
            for block in self.parts
        ]
        if self.has_own_values:
            state.append({"constants": self.moving.moments, "constant": self._constant})
        return state

    def integral_error(self) -> float:
        """Estimated error of the bound, in nats, by all integrals that are taken numerically."""
        integrated = (part for part in self.parts if part.integrates)
        error = sum(part.integral_error(self.messages(part)) for part in integrated)
        return float(self._of_all(torch.tensor(error, dtype=torch.float64)))

    def load(self, state: State) -> None:
        """Go back to a state. What was computed at it is kept where the model is still there."""
        parts = self.parts
        if self.has_own_values:
            own, state = state[-1], state[:-1]
            if self.moving.moments is not own["constants"]:
                self.moving.moments, self._constant = own["constants"], own["constant"]
                self.moving.changed()
        for block, saved in zip(parts, state, strict=True):
            if block.natural is not saved["natural"]:
                vars(block).update(saved)
                block.changed()


def _is_continuous(block: Block) -> bool:
    return isinstance(block, DenseBlock) and not block.family.is_discrete
