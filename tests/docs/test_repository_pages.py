"""Pages from outside of docs/ on the site: links are rewritten to where their targets stand there."""

from pathlib import Path

import pytest

pytest.importorskip("sphinx")
repository = pytest.importorskip("repository")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("source", "place", "text", "expected"),
    [
        ("docs/trust.md", "docs/trust.md", "[a](arviz.md)", "[a](arviz.md)"),
        ("docs/trust.md", "docs/trust.md", "[a](../README.md#x)", "[a](repository/README.md#x)"),
        (
            "docs/derivations/vae.md",
            "docs/derivations/vae.md",
            "[a](../../benchmarks/results/kills.jsonl), [b](../../CHANGELOG.md)",
            "[a](../../benchmarks/results/kills.jsonl), [b](../repository/CHANGELOG.md)",
        ),
        ("README.md", "docs/repository/README.md", "[a](docs/index.md)", "[a](../index.md)"),
        (
            "README.md",
            "docs/repository/README.md",
            "[a](benchmarks/results/vae_mnist.md)",
            "[a](benchmarks/results/vae_mnist.md)",
        ),
        (
            "docs/how_to_choose.md",
            "docs/how_to_choose.md",
            "![a](../benchmarks/results/flow_energy.png)",
            "![a](../benchmarks/results/flow_energy.png)",
        ),
        ("docs/trust.md", "docs/trust.md", "[a](no_such.md)", "[a](no_such.md)"),  # Sphinx warns
        ("README.md", "docs/repository/README.md", "[a](https://x.org)", "[a](https://x.org)"),
        (
            "README.md",
            "docs/repository/README.md",
            "```\n[a](docs/index.md)\n```\n[a](docs/demo.md)",
            "```\n[a](docs/index.md)\n```\n[a](../demo.md)",
        ),
    ],
)
def test_links_lead_to_the_same_page_on_the_site(source, place, text, expected):
    assert repository.rebased(text, ROOT / source, ROOT / place) == expected


def test_a_table_without_a_title_is_named_after_its_file():
    titled = repository.titled("| a |\n", Path("verdict_honesty.md"))
    assert titled == "# Verdict honesty\n\n| a |\n"
    assert repository.titled("# A\nb", Path("c.md")) == "# A\nb"


def test_formulas_become_mathml_and_wrong_ones_are_told():
    pytest.importorskip("math_core")
    mathml = pytest.importorskip("mathml")
    fraction = mathml.to_mathml(r"\frac{a}{b}", display=False)
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in fraction
    assert "display" not in fraction
    tagged = mathml.to_mathml(r"x = 1 \tag{7}", display=True)
    assert "7" in tagged
    assert 'display="block"' in tagged
    with pytest.raises(mathml.LatexError, match="nosuch"):
        mathml.to_mathml(r"\nosuch", display=False)
