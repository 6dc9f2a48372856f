"""Shipped models on a user's own table: the columns are named, labels reach the picture, slips are told."""

import os

import pytest

from vitools import cavi
from vitools.cli.arguments import DataFile
from vitools.cli.target import open_target

SLEEP = ["Reaction,Days,Subject"] + [
    f"{250 + 20 * g + (8 + g) * d + (7 * g + 3 * d) % 11}.5,{d},{308 + 3 * g}"
    for g in range(5)
    for d in range(4)
]
COLUMNS = ("--columns", "y=Reaction", "--columns", "x=Days", "--columns", "group=Subject")


@pytest.fixture
def table(folder):
    """A file of these lines."""

    def write(lines):
        (folder / "own.csv").write_text("\n".join(lines) + "\n")

    return write


def test_mixed_on_named_columns_draws_the_groups_by_their_numbers(folder, table):
    table(SLEEP)
    file = DataFile.of(folder / "own.csv", list(COLUMNS[1::2]), "refuse")
    target = open_target("mixed", file, seed=0)
    (figure,) = target.pictures(cavi(target.problem, max_sweeps=3, nested=())).values()
    names = {text.get_text() for text in figure.axes[0].get_yticklabels()}
    assert names == {"308", "311", "314", "317", "320"}


def test_arguments_that_are_no_columns_are_set(folder, table):
    table(["y", *(f"{i % 7}.5" for i in range(30))])
    file = DataFile.of(folder / "own.csv", None, "refuse", settings=["states=3"])
    assert open_target("hidden-markov", file, seed=0).problem.latents["level"].shape == (3,)
    alone = DataFile.of(None, None, "refuse", settings=["states=4"])
    assert open_target("hidden-markov", alone, seed=0).problem.latents["level"].shape == (4,)


@pytest.mark.slow
def test_fit_writes_the_picture_of_a_users_own_groups(vitools, table):
    table(SLEEP)
    result = vitools(
        "fit", "mixed", "--data", "own.csv", *COLUMNS, "--out", "fits", "--draws", "40"
    )
    assert result.exit_code in (0, 1), result.output  # five groups: the verdict may go either way
    assert "level" in result.stdout
    assert "effects.png" in os.listdir("fits")


@pytest.mark.parametrize(
    ("lines", "columns", "said"),
    [
        (SLEEP, ("--columns", "y=Reaction", "--columns", "x=Days"), "has no column 'group', which"),
        (SLEEP, (*COLUMNS[:-1], "group=Person"), "has no column 'Person'"),
        ([SLEEP[0], *SLEEP[1:5]], COLUMNS, "group: expected at least 2 different values, got 1"),
        ([*SLEEP, "NaN,3,311"], COLUMNS, "line 22, column 'Reaction': missing"),
        (SLEEP, (*COLUMNS[:-1], "group=Reaction"), "group: 250.5 in row 0"),
        ([SLEEP[0], *(f"1,{r}" for r in SLEEP[1:])], COLUMNS, "line 2"),
    ],
    ids=["absent", "misnamed", "one group", "missing", "no groups at all", "ragged"],
)
def test_tables_that_mixed_cannot_take(refused, table, lines, columns, said):
    table(lines)
    assert said in " ".join(refused("fit", "mixed", "--data", "own.csv", *columns).split())
