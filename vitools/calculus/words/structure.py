"""In words: how a Gaussian factor over groups is held, what keeps the states of a loop from one, wider models."""

from vitools.calculus.blocks.levels import Axes
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.tracing.trace import ModelTrace
from vitools.elimination import Border, Level


def held(block: TreeBlock) -> str:
    """Sites, structure and cost: ``b, u: one normal; u (2000 groups of 1) eliminated, then b dense …``."""
    at: dict[int | None, list[str]] = {}
    for name, level in block.levels.level.items():
        at.setdefault(level, []).append(name)
    levels = zip(block.tree.levels, block.tree.borders, strict=True)
    parts = [
        f"{' and '.join(at[i])} ({_kind(*own, block.levels.axes[at[i][0]])})"
        for i, own in enumerate(levels)
    ]
    numbers = f"{block.tree.root} number{'s' * (block.tree.root != 1)}"
    then = f", then {', '.join(at[None])} dense ({numbers})" if None in at else ""
    share = "share one normal" if len(block.names) > 1 else "has one normal"
    return (
        f"{block.title} {share}: eliminated are {', then '.join(parts)}{then}; "
        f"about {block.tree.operations:.1g} multiplications a sweep."
    )


def _kind(level: Level, border: Border, axes: Axes) -> str:
    if level.length == 1:
        few = f", each beside about {border.slots / level.groups:.0f} of the dense numbers"
        return f"{level.groups} groups of {level.width}{'' if border.is_full else few}"
    chains = "a Markov chain" if level.groups == 1 else f"{level.groups} Markov chains"
    together = "" if axes.lag == 1 else f", {axes.lag} steps at a time"
    return f"{chains} of {axes.steps} steps of {level.width // axes.lag}{together}"


def step_by_step(stem: str, why: str, trace: ModelTrace) -> str:
    """``x_0, …, x_99: states of a loop, read one by one: a LogNormal has no factor with its neighbours.``"""
    numbers = sorted(
        int(n.removeprefix(stem))
        for n in trace.sites
        if n.startswith(stem) and n.removeprefix(stem).isdecimal()
    )
    return f"{stem}{numbers[0]}, …, {stem}{numbers[-1]}: states of a loop, read one by one: {why}."


def wider(name: str, trace: ModelTrace) -> str:
    """``component of y: a latent of a wider model, summed out again …`` of a latent that the user's model lacks."""
    how = "summed" if trace.sites[name].support_size else "integrated"
    return (
        f"{name}: a latent of a wider model, {how} out again in densities, draws and weights of the posterior "
        "(an exact augmentation); the bound is the wider model's."
    )
