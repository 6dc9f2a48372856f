"""A matplotlib figure that a notebook shows by itself.

Figures here are made without pyplot, which keeps global state; but it is pyplot whose import tells notebooks
how to show a figure. This one knows it too.
"""

from io import BytesIO

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure with a picture of itself for whoever displays it."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()
