"""What becomes of the rows of a table that lack a value; here, because the shell's options load no numpy."""

from typing import Literal

MissingPolicy = Literal["refuse", "drop", "mask"]
