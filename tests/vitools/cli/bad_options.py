"""Malformed options, as :mod:`bad_inputs`: nothing is opened, let alone fitted."""

from bad_inputs import ROWS, fit


def blank(command, option):
    """The case of an option with nothing for a value."""
    return ([*command.split(), option, ""], "", [f"{option} is followed by nothing"])


CASES = {
    "methods: a comma": (["compare", "coin", "--methods", ","], "", ["--methods ','", "names"]),
    "methods: a comma too many": (
        ["compare", "coin", "--methods", "exact,,nuts"],
        "",
        ["--methods 'exact,,nuts'"],
    ),
    "methods: a comma at the end": (["compare", "coin", "--methods", "exact,"], "", ["'exact,'"]),
    "methods: with spaces": (["compare", "coin", "--methods", "exact nuts"], "", ["no method"]),
    "methods: a label": (["compare", "coin", "--methods", "NUTS"], "", ["Did you mean 'nuts'?"]),
    "methods: blank": blank("compare coin", "--methods"),
    "method: blank": blank("fit coin", "--method"),
    "method of calibrate: blank": blank("calibrate coin", "--method"),
    "guide: blank": blank("fit coin", "--guide"),
    "data: blank": blank("fit coin", "--data"),
    "out: blank": blank("fit coin", "--out"),
    "report: blank": blank("compare coin", "--report"),
    "columns: blank": blank("fit coin", "--columns"),
    "seed: blank": blank("fit coin", "--seed"),
    "report with nothing after its sign": (["compare", "coin", "--report="], "", ["--report is"]),
    "model: blank": (["fit", ""], "", ["followed by nothing"]),
    "model: spaces": (["fit", "  "], "", ["followed by nothing"]),
    "fit unknown": (["compare", "coin", "--fit", "nutz"], "", ["Did you mean 'nuts'?"]),
    "fit not among the methods": (
        ["compare", "coin", "--methods", "exact", "--fit", "nuts"],
        "",
        ["--fit nuts", "not run", "exact"],
    ),
    "fit that no default makes": (["compare", "coin", "--fit", "cavi-joint"], "", ["not run"]),
    "columns without a sign": (fit("line", "--columns", "x"), ROWS, ["ARGUMENT=COLUMN"]),
    "columns without a column": (fit("line", "--columns", "y= "), ROWS, ["ARGUMENT=COLUMN"]),
    "columns without an argument": (fit("line", "--columns", "=y"), ROWS, ["ARGUMENT=COLUMN"]),
    "columns of no such argument": (
        fit("line", "--columns", "yy=y"),
        ROWS,
        ["no argument 'yy'", "Did you mean 'y'?"],
    ),
    "columns of no such column": (fit("line", "--columns", "y=z"), ROWS, ["no column 'z'"]),
    "columns given twice": (
        fit("line", "--columns", "y=y", "--columns", "y=y"),
        ROWS,
        ["given twice"],
    ),
    "columns without data": (["fit", "m.py:line", "--columns", "x=a"], "", ["--data FILE"]),
    "set: blank": blank("fit coin", "--set"),
    "set without a sign": (fit("line", "--set", "scale"), ROWS, ["ARGUMENT=VALUE"]),
    "set without a value": (fit("line", "--set", "scale= "), ROWS, ["ARGUMENT=VALUE"]),
    "set of no such argument": (
        fit("line", "--set", "scael=2"),
        ROWS,
        ["no argument 'scael'", "Did you mean 'scale'?"],
    ),
    "set given twice": (fit("line", "--set", "scale=1", "--set", "scale=2"), ROWS, ["given twice"]),
    "set beside columns": (
        fit("line", "--columns", "scale=y", "--set", "scale=2"),
        ROWS,
        ["--set scale: --columns names a column"],
    ),
    "set to words in a list": (fit("line", "--set", "scale=['a']"), ROWS, ["a list of numbers"]),
    "set of the data of an example": (
        ["fit", "hidden-markov", "--set", "y=3"],
        "",
        ["--set y: 'y' is the data"],
    ),
    "set of a formula": (
        ["fit", "--formula", "y ~ x", "--data", "d.csv", "--set", "x=1"],
        ROWS,
        ["--set x: a formula has no arguments"],
    ),
    "missing: unknown": (fit("line", "--missing", "skip"), ROWS, ["--missing", "'skip'"]),
    "missing: blank": blank("fit coin", "--missing"),
    "too large a seed": (["fit", "coin", "--seed", str(2**32)], "", ["--seed"]),
    "seed with a fraction": (["fit", "coin", "--seed", "1.5"], "", ["--seed", "integer"]),
    "too many draws": (["fit", "coin", "--draws", "1000001"], "", ["--draws"]),
    "draws in words": (["compare", "coin", "--draws", "many"], "", ["--draws"]),
    "one data set": (["calibrate", "coin", "--data-sets", "1"], "", ["--data-sets"]),
    "no jobs": (["calibrate", "coin", "--jobs", "0"], "", ["--jobs"]),
    "draw without an ending": (["draw", "coin", "--out", "graph"], "", ["expected .svg"]),
    "an argument too many": (["fit", "coin", "regression"], "", ["regression"]),
    "option of another command": (["list", "--seed", "1"], "", ["--seed"]),
    "folder of data for a file's model": (["fit", "coin", "--data", "."], "", ["is a folder"]),
    "columns of a folder": (
        ["fit", "vae", "--data", ".", "--columns", "a=b"],
        "",
        ["--columns is for a file of columns"],
    ),
    "file of others in the way": (
        ["fit", "coin", "--out", "o"],
        {"o/": "", "o/posterior.nc": "mine"},
        ["not written by vitools", "--force"],
    ),
    "picture of others in the way": (
        ["draw", "coin", "--out", "g.png"],
        {"g.png": "mine"},
        ["not written by vitools", "--force"],
    ),
    "page of others in the way": (
        ["compare", "coin", "--report", "o"],
        {"o/": "", "o/index.html": "<html>mine"},
        ["not written by vitools", "--force"],
    ),
}
