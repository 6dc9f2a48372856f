"""Writes the table of features, models by features, into the README beside this file."""

from pathlib import Path

import discrete  # noqa: F401  (each fills the collection)
import groups  # noqa: F401
import regressions  # noqa: F401
import sequences  # noqa: F401
import structured  # noqa: F401
from trial import feature_table

TEXT = """# Trials

Models with guides in the styles of Pyro's and NumPyro's examples and tutorials. Each goes through every
stage (`Problem`, `explain`, `draw`, its own guide, an automatic one, `nuts`, `to_arviz`, `predictive`)
and must come out with what it says or be refused in words: `pytest tests/trials -m ""` runs all of it,
the default selection the cheap stages and a few fits. `test_against_pyro.py` holds the log joint at three
points of each, the density of its own guide and that guide's bound against Pyro's own traces and losses.
`python tests/trials/table.py` writes this page.

```
{}
```
"""

if __name__ == "__main__":
    Path(__file__).with_name("README.md").write_text(TEXT.format(feature_table()))
