"""Every test runs in float64 and must leave the process as it found it."""

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


@pytest.fixture(autouse=True)
def clean_process():
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
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed {', '.join(changed)}"
