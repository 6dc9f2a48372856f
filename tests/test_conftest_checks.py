"""The fixture that watches global state fails what it should, in a run of its own."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

OFFENDERS = {
    "torch.set_default_dtype(torch.float16)": "torch's default dtype",
    "torch.rand(1)": "torch's generator",
    "pyro.param('a', torch.tensor(1.0))": "names in Pyro's param store",
    "pyro.enable_validation(False)": "Pyro's distribution validation flag",
    "torch.set_grad_enabled(False)": "torch's gradient mode",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "torch's thread count",
}


@pytest.mark.slow
def test_changes_of_global_state_fail(pytester):
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text("utf-8"))
    bodies = [*OFFENDERS, "assert torch.get_default_dtype() == torch.float64"]
    tests = [f"def test_{i}():\n    {body}\n" for i, body in enumerate(bodies)]
    pytester.makepyfile("import pyro, torch\n\n" + "\n".join(tests))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=len(bodies), errors=len(OFFENDERS))
    for words in OFFENDERS.values():
        result.stdout.fnmatch_lines([f"*AssertionError: the test changed *{words}*"])
