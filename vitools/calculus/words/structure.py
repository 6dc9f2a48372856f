"""How a Gaussian factor over groups is held, in words."""

from vitools.calculus.blocks.tree import TreeBlock


def held(block: TreeBlock) -> str:
    """Sites, structure and cost: ``b, u: one normal; u (2000 groups of 1) eliminated, then b dense …``."""
    levels = block.levels
    at = {level: name for name, level in levels.level.items() if level is not None}
    parts = []
    for i, (level, border) in enumerate(zip(block.tree.levels, block.tree.borders, strict=True)):
        few = f", each beside about {border.slots / level.groups:.0f} of the dense numbers"
        beside = "" if border.is_full else few
        parts.append(f"{at[i]} ({level.groups} groups of {level.width}{beside})")
    dense = [name for name, level in levels.level.items() if level is None]
    numbers = f"{block.tree.root} number{'s' * (block.tree.root != 1)}"
    then = f", then {', '.join(dense)} dense ({numbers})" if dense else ""
    return (
        f"{block.title} share one normal: eliminated are {', then '.join(parts)}{then}; "
        f"about {block.tree.operations:.1g} multiplications a sweep."
    )
