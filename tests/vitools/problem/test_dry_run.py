"""Operations whose results are too large are not carried out; all else is real."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from vitools.isolation import seeded
from vitools.problem.reading.dry_run import SMALL, DryRun, MemoryLimit, TooLargeError, room

HUGE = 10**12


def test_small_operations_are_carried_out_as_ever():
    with DryRun() as sizes:
        x = torch.arange(6.0).reshape(2, 3)
        product = x @ x.T
        positive = bool((x.sum() > 0).item())
    assert product.tolist() == [[5.0, 14.0], [14.0, 50.0]]
    assert positive
    assert sizes.need is None
    assert not sizes.is_placeholder(product)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**6, 10**6),
        lambda: torch.arange(10**6)[:, None] * torch.arange(10**6),
        lambda: torch.ones(10, 10**6)[torch.zeros(10**6, dtype=torch.long)],
        lambda: torch.ones(10**6, 1) @ torch.ones(1, 10**6),
        lambda: torch.ones(10**6).repeat(10**6, 1),
        lambda: torch.ones(1).expand(10**6, 10**6).clone(),
        lambda: torch.eye(10**6),
        lambda: torch.ones(10**6).diag(),
        lambda: torch.linalg.qr(torch.ones(10**6, 1), mode="complete").Q,
        lambda: torch.nn.functional.one_hot(torch.zeros(10**6, dtype=torch.long), 10**6),
        lambda: torch.einsum("i,j->ij", torch.ones(10**6), torch.ones(10**6)),
        lambda: torch.stack([torch.ones(1).expand(10**6, 10**3)] * 1000),
        lambda: torch.empty(10**6, 10**6).normal_(),
    ],
)
def test_whatever_makes_a_huge_tensor_gets_its_shape_only(make):
    with DryRun() as sizes:
        result = make()
    assert result.numel() == HUGE
    assert sizes.is_placeholder(result)
    assert sizes.need.bytes >= HUGE * result.element_size()
    with pytest.raises(TooLargeError, match="GB"), MemoryLimit(SMALL):
        make()


def test_what_is_computed_from_a_placeholder_is_one_and_what_is_not_stays_real():
    with DryRun() as sizes:
        huge = torch.zeros(10**6, 10**6)
        row_means = huge.mean(0)
        beside = torch.ones(3) * 2
        view = huge[5:7, :3].T.reshape(6)
    assert row_means.shape == (10**6,)
    assert sizes.is_placeholder(row_means)
    assert view.shape == (6,)
    assert sizes.is_placeholder(view)
    assert beside.tolist() == [2.0, 2.0, 2.0]
    assert not sizes.is_placeholder(beside)


@pytest.mark.parametrize(
    "use",
    [
        lambda huge: bool(huge[0, 0] > 0),
        lambda huge: float(huge.sum()),
        lambda huge: torch.ones(3)[huge[:3, 0] > 0],
        lambda huge: torch.zeros(3).add_(huge[:3, 0]),
    ],
)
def test_values_that_were_not_computed_cannot_be_read_or_written(use):
    with DryRun():
        huge = torch.zeros(10**6, 10**6)
        with pytest.raises(TooLargeError, match="asks for some"):
            use(huge)


def test_a_shape_that_depends_on_values_is_left_to_torch():
    with DryRun():
        mask = torch.arange(10**6) % 2 == 0
        assert torch.ones(10**6)[mask].shape == (500_000,)


def test_the_need_is_named_after_the_statement_it_was_for():
    def model():
        table = pyro.sample("table", dist.Normal(0.0, 1.0).expand([4, 10**6]).to_event(2))
        with pyro.plate("rows", 10**6):
            z = pyro.sample("z", dist.Categorical(torch.ones(4)))
            pyro.sample("x", dist.Categorical(logits=table[z]), obs=torch.zeros(10**6).long())

    with seeded(0), pyro.validation_enabled(False), DryRun() as sizes:
        run = poutine.trace(sizes.watch()(model)).get_trace()
    assert sizes.need.site == "x"
    assert sizes.need.shape == (10**6, 10**6)
    assert run.nodes["x"]["fn"].batch_shape == (10**6,)
    message = str(sizes.need.refusal("model 'm'"))
    assert message.startswith("model 'm': site 'x' needs a tensor of 8000 GB (1000000 × 1000000)")


def test_room_is_a_part_of_the_memory_there_is():
    assert room() > 2**27, "this machine has more than half a gigabyte"
