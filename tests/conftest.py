"""Every test runs in float64 and must leave the process as it found it."""

import gc

import pyro
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK


def _global_state():
    """What a test may not change, in words and values that can be compared."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's thread count": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's validation flag": torch.distributions.Distribution._validate_args,
        "Pyro's distribution validation flag": pyro.distributions.is_validation_enabled(),
        "Pyro's handler validation flag": pyro.poutine.is_validation_enabled(),
        "Pyro's inference validation flag": pyro.infer.is_validation_enabled(),
        "names in Pyro's param store": sorted(pyro.get_param_store().keys()),
        "Pyro's active handlers": len(_PYRO_STACK),
        "torch's generator": torch.get_rng_state().tolist(),
    }


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "uses_global_generator: the test itself seeds or draws from torch's generator"
    )


def pytest_collection_finish():
    """What is loaded by now stays: the collector need not walk through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_process(request):
    """float64 inside the test; afterwards, an error for each piece of global state it changed."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        before = _global_state()
        try:
            yield
            after = _global_state()
        finally:
            torch.set_default_dtype(dtype)
            pyro.clear_param_store()
    if request.node.get_closest_marker("uses_global_generator"):
        before.pop("torch's generator")
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed {', '.join(changed)}"


@pytest.fixture
def float32_by_default(clean_process):
    """torch as a reader has it, for tests of what follows its default dtype."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)
