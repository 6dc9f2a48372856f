"""The page on training deep models: its example runs, and goes on from its own checkpoint."""

import re
from pathlib import Path

import pytest
import torch

from vitools.models.vae import VAE, elbo_terms

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deep_models.md"


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_the_example_trains_and_a_second_run_finds_it_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    first, second = {}, {}
    exec(code, first)
    exec(code, second)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("validation bound")
    assert said[0] == said[1]
    blank = VAE(64, latent_dim=8, hidden=(128,))
    bounds = [elbo_terms(vae, first["held_out"]).elbo for vae in (first["vae"], blank)]
    assert float((bounds[0] - bounds[1]).mean()) > 15  # nats an image
    trained, again = (run["vae"].state_dict() for run in (first, second))
    assert all(torch.equal(trained[name], again[name]) for name in trained)
