"""``--data`` with a folder of images: what is read, what is trained, what is refused."""

import numpy as np
import pytest
import torch

from vitools.cli import deep_methods
from vitools.cli.arguments import DataFile
from vitools.cli.target import open_target
from vitools.errors import DataError, OptionError


@pytest.fixture
def folder(tmp_path):
    """Blurred stripes of 4 × 6 pixels, counts 0 to 9, in arrays of their own names."""
    random = np.random.default_rng(0)
    for name, size in (("train", 60), ("test", 40)):
        across = random.integers(2, size=(size, 1, 1))
        rows, columns = np.indices((4, 6))
        stripes = np.where(across, rows % 2, columns % 2)
        images = np.clip(8 * stripes + random.integers(2, size=stripes.shape), 0, 9)
        np.save(tmp_path / f"{name}.npy", images.astype(np.uint8))
        np.save(tmp_path / f"{name}_labels.npy", across.ravel())
    return tmp_path


def test_a_folder_gives_data_to_train_to_stop_and_to_judge_by(folder):
    target = open_target("vae", DataFile(folder), 3)
    assert target.description == "60 binarised 4×6 images, 2 latents, batches of 60"
    assert target.problem.args[0].shape == (60, 24)
    assert target.problem.observed["x"].value.unique().tolist() == [0, 1]
    assert [len(part) for part in (*target.validation, *target.held_out)] == [20, 20]
    assert not torch.equal(target.validation[0], target.held_out[0])
    again, other = (open_target("vae", DataFile(folder), seed).problem.args[0] for seed in (3, 4))
    assert torch.equal(again, target.problem.args[0])
    assert not torch.equal(other, again)


@pytest.mark.slow
def test_fit_trains_on_a_folder(vitools, folder, monkeypatch):
    monkeypatch.setattr(deep_methods, "EVERY", 40)
    monkeypatch.setattr(deep_methods, "MAX_STEPS", 40)
    result = vitools("fit", "vae", "-q", "--data", str(folder), "--out", str(folder / "out"))
    assert result.exit_code == 1, result.output  # at its limit
    assert "stopped at limit" in result.output
    assert "mean of 20 held-out images" in " ".join(result.output.split())
    written = {path.name for path in (folder / "out").iterdir()}
    assert {"fit.safetensors", "latent_plane.png", "reconstructions.png"} <= written
    assert "posterior.nc" not in written  # a set of latents for each image, unless asked for


def test_folders_that_do_not_fit_are_refused(folder):
    with pytest.raises(OptionError, match="is a folder, and coin takes a file of columns"):
        open_target("coin", DataFile(folder), 0)
    np.save(folder / "test.npy", np.zeros((19, 4, 6), np.uint8))
    (folder / "test_labels.npy").unlink()
    with pytest.raises(DataError, match="expected 20 held-out images at least, got 19"):
        open_target("vae", DataFile(folder), 0)
