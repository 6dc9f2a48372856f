"""Malformed inputs: what is typed, which files lie there, and words the one message must have."""

FLIPS, ROWS, Y = "heads\n1\n0\n1\n", "x,y\n1,2\n2,3\n", "y\n1\n2\n3\n"
DATA = ("--data", "d.csv")


def fit(model, *more):
    """``vitools fit`` of a model of the file on ``d.csv``."""
    return ["fit", f"m.py:{model}", *DATA, *more]


def guide(name):
    """A guide of the file for the coin."""
    return fit("coin", "--guide", f"m.py:{name}")


# name: (arguments, contents of d.csv or of {file: contents}, words of the message)
FILES = {
    "data file absent": (["fit", "m.py:line", "--data", "no.csv"], ROWS, ["no.csv does not exist"]),
    "data file mistyped": (["fit", "m.py:line", "--data", "dd.csv"], ROWS, ["did you mean d.csv?"]),
    "data folder absent": (["fit", "m.py:line", "--data", "a/d.csv"], ROWS, ["no folder a"]),
    "data is a folder": (
        ["fit", "m.py:line", "--data", "sub.csv"],
        {"sub.csv/": ""},
        ["is a folder"],
    ),
    "empty file": (fit("line"), "", ["d.csv is empty"]),
    "only blank lines": (fit("line"), "\n\n\n", ["line 1", "blank line"]),
    "only a header": (fit("line"), "x,y\n", ["column names but no rows"]),
    "no header": (fit("line"), "1,2\n3,4\n", ["line 1", "got numbers"]),
    "unnamed column": (fit("line"), "x,\n1,2\n", ["no column 'y'", "columns: x;"]),
    "column named twice": (fit("line"), "x,x,y\n1,2,3\n", ["'x' appears twice"]),
    "short row": (fit("line"), "x,y\n1,2\n3\n", ["line 3", "1 cells, expected 2"]),
    "long row": (fit("line"), "x,y\n1,2\n3,4,5\n", ["line 3", "3 cells, expected 2"]),
    "word in a cell": (fit("line"), "x,y\n1,2\n3,tall\n", ["line 3, column 'y'", "got 'tall'"]),
    "blank cell": (fit("line"), "x,y\n1,\n", ["line 2, column 'y'", "blank", "--missing drop"]),
    "NaN": (fit("line"), "x,y\n1,2\n2,nan\n", ["line 3, column 'y'", "missing", "in all y 1."]),
    "infinity": (fit("line"), "x,y\ninf,2\n", ["line 2, column 'x'", "'inf' is not finite"]),
    "both decimal marks": (
        fit("line"),
        "x;y\n1,5;2\n1.5;2\n",
        ["line 2, column 'x'", "'1,5'", "decimal point"],
    ),
    "thousands": (fit("line"), "x,y\n1_000,2\n", ["line 2, column 'x'", "'1_000'"]),
    "date": (fit("line"), "x,y\n2020-01-02,2\n", ["line 2, column 'x'", "'2020-01-02'"]),
    "open quote": (fit("line"), 'x,y\n"1,2\n', ["d.csv", "line"]),
    "not UTF-8": (fit("line"), b"x,y\n\xff\xfe,2\n", ["not UTF-8"]),
    "unknown ending": (
        ["fit", "m.py:line", "--data", "d.xlsx"],
        {"d.xlsx": ROWS},
        ["'.xlsx'", ".csv", "Save the sheet as csv"],
    ),
    "workbook called csv": (fit("line"), b"PK\x03\x04\x14\x00\x06\x00", ["not text", "workbook"]),
    "packed file": (
        ["fit", "m.py:line", "--data", "d.csv.gz"],
        {"d.csv.gz": b"\x1f\x8b\x08"},
        ["'.gz'", "Unpack it first"],
    ),
    "packed file called csv": (fit("line"), b"\x1f\x8b\x08\x00", ["not text", "archive"]),
    "text called npz": (
        ["fit", "m.py:line", "--data", "d.npz"],
        {"d.npz": ROWS},
        ["not an npz archive"],
    ),
    "text called parquet": (
        ["fit", "m.py:line", "--data", "d.parquet"],
        {"d.parquet": ROWS},
        ["d.parquet"],
    ),
    "npz cut short": (
        ["fit", "m.py:line", "--data", "d.npz"],
        {"d.npz": b"PK\x03\x04cut"},
        ["d.npz"],
    ),
}

COLUMNS = {
    "column missing": (fit("line"), "x,z\n1,2\n", ["no column 'y'", "columns: x, z"]),
    "column mistyped": (fit("line"), "x,Y\n1,2\n", ["no column 'y'", "Did you mean 'Y'?"]),
    "no data given": (["fit", "m.py:line"], ROWS, ["needs data for 'x', 'y'", "--data FILE"]),
    "too many columns for one argument": (fit("coin"), "a,b\n1,0\n0,1\n", ["(2, 2)", "d.csv"]),
    "shipped model, wrong columns": (["fit", "regression", *DATA], "age,bmi\n1,2\n", ["d.csv"]),
}

VALUES = {
    "outside the support of Bernoulli": (
        fit("coin"),
        "heads\n1\n2\n",
        ["'obs'", "got 2.0 at index 1"],
    ),
    "outside the support of Categorical": (fit("faces"), "face\n0\n3\n", ["'obs'", "3"]),
    "negative category": (fit("faces"), "face\n0\n-1\n", ["'obs'", "-1"]),
    "category that is no whole number": (fit("faces"), "face\n0\n1.5\n", ["'obs'", "1.5"]),
    "negative count": (fit("counts"), "n\n3\n-1\n", ["'obs'", "-1"]),
    "count that is no whole number": (fit("counts"), "n\n3\n2.5\n", ["'obs'", "2.5"]),
    "negative waiting time": (fit("waits"), "t\n3\n-0.5\n", ["'obs'", "-0.5"]),
    "shares that do not sum to one": (fit("shares"), "a,b,c\n0.5,0.5,0.5\n", ["'obs'"]),
    "NaN in the model's own data": (fit("lost"), Y, ["'obs'", "nan"]),
    "lengths that differ from the plate": (fit("wrong_length"), Y, ["2", "3"]),
    "missing plate": (fit("missing_plate"), Y, ["obs"]),
}

PROGRAMS = {
    "model file absent": (["fit", "n.py:coin", *DATA], FLIPS, ["no file 'n.py'", "'m.py'"]),
    "function mistyped": (fit("coyn"), FLIPS, ["no function 'coyn'", "Did you mean 'coin'?"]),
    "function forgotten": (["fit", "m.py", *DATA], FLIPS, ["m.py:model"]),
    "not callable": (fit("number"), Y, ["no function 'number'"]),
    "shipped name mistyped": (["compare", "two-dise"], "", ["Did you mean 'two-dice'?"]),
    "nothing observed": (fit("no_data_seen"), Y, ["no_data_seen", "observes nothing"]),
    "nothing latent": (fit("no_latent"), Y, ["no latent sites"]),
    "no sites": (fit("no_sites"), Y, ["no_sites"]),
    "site twice": (fit("twice"), Y, ["mu"]),
    "shape that changes": (fit("restless"), Y, ["'mu'", "shape"]),
    "latent that cannot be summed": (fit("unbounded_latent"), Y, ["'n'", "Poisson"]),
    "negative scale": (fit("negative_scale"), Y, ["scale"]),
    "observations in a list": (fit("listed"), Y, ["obs", "list"]),
    "model that raises": (fit("raises"), Y, ["ValueError", "the reader is asleep"]),
    "model with a wrong key": (fit("wrong_key"), Y, ["KeyError", "prior"]),
    "shapes that do not multiply": (
        fit("broken_multiply"),
        Y,
        ["broken_multiply", "y (int64 [3])"],
    ),
    "no distribution": (fit("not_a_distribution"), Y, ["not_a_distribution"]),
    "model file with a syntax error": (
        ["fit", "s.py:model", *DATA],
        {"d.csv": Y, "s.py": "def model(:\n"},
        ["SyntaxError", "line 1"],
    ),
    "model file that imports what is not there": (
        ["fit", "s.py:model", *DATA],
        {"d.csv": Y, "s.py": "import nowhere_to_be_found\n"},
        ["nowhere_to_be_found"],
    ),
}

GUIDES = {
    "guide of another site": (guide("guide_of_another"), FLIPS, ["'q'", "latents: p"]),
    "guide of nothing": (guide("guide_of_nothing"), FLIPS, ["does not draw p"]),
    "guide of too much": (guide("guide_of_too_much"), FLIPS, ["'extra'"]),
    "guide outside the support": (guide("guide_outside"), FLIPS, ["'p'", "support"]),
    "guide of another shape": (guide("guide_of_another_shape"), FLIPS, ["'p'", "shape"]),
    "guide of other arguments": (guide("guide_of_other_arguments"), FLIPS, ["guide"]),
    "guide that raises": (guide("guide_that_raises"), FLIPS, ["no guide today"]),
    "guide class that needs more": (guide("GuideThatNeedsMore"), FLIPS, ["depth"]),
    "guide mistyped": (guide("guide_of_nothin"), FLIPS, ["Did you mean 'guide_of_nothing'?"]),
    "guide file absent": (fit("coin", "--guide", "g.py:guide"), FLIPS, ["no file 'g.py'", "guide"]),
    "guide without a name": (fit("coin", "--guide", "m.py"), FLIPS, ["--guide 'm.py'"]),
}

METHODS = {
    "guide that the method ignores": (
        fit("coin", "--guide", "m.py:guide_of_nothing", "--method", "cavi"),
        FLIPS,
        ["--guide", "ignored", "own-guide", "cavi"],
    ),
    "guide that the methods ignore": (
        ("compare", "m.py:coin", "--data", "d.csv", "--guide", "m.py:g", "--methods", "cavi,nuts"),
        FLIPS,
        ["--guide", "ignored", "own-guide", "cavi, nuts"],
    ),
    "method mistyped": (fit("coin", "--method", "nutz"), FLIPS, ["Did you mean 'nuts'?"]),
    "method unknown among several": (
        ["compare", "m.py:coin", *DATA, "--methods", "exact,magic"],
        FLIPS,
        ["no method 'magic'"],
    ),
    "method that does not apply": (
        fit("counts", "--method", "cavi-joint"),
        "n\n3\n",
        ["no two discrete latents", "try --method with one of"],
    ),
    "exact on a model that is too large": (
        ["fit", "regression", "--method", "exact"],
        "",
        ["12 continuous dimensions", "nuts()"],
    ),
    "negative seed": (
        ["fit", "coin", "--seed", "-1"],
        "",
        ["--seed", "greater than or equal to 0"],
    ),
    "seed that is no number": (["fit", "coin", "--seed", "one"], "", ["--seed", "integer"]),
    "no draws": (["fit", "coin", "--draws", "0"], "", ["--draws", "greater than or equal to 1"]),
    "option mistyped": (["compare", "coin", "--repport", "r"], "", ["--repport"]),
    "option without its value": (["compare", "coin", "--report"], "", ["--report"]),
    "command mistyped": (
        ["comapre", "coin"],  # codespell:ignore comapre
        "",
        ["Did you mean 'compare'?"],
    ),
    "model forgotten": (["fit"], "", ["MODEL"]),
    "picture of no known kind": (
        ["draw", "coin", "--out", "g.gif"],
        "",
        ["'.gif'", ".svg, .png or .pdf"],
    ),
}

FOLDERS = {
    "report below a file": (["compare", "coin", "--report", "m.py/r"], "", ["not a folder"]),
    "fits below a file": (["fit", "coin", "--out", "m.py"], "", ["not a folder"]),
    "picture below a file": (["draw", "coin", "--out", "m.py/g.svg"], "", ["not a folder"]),
    "picture where a folder is": (["draw", "coin", "--out", "g.svg"], {"g.svg/": ""}, ["g.svg"]),
}

# what they are called where they are counted
CLASSES = {
    "files and formats": FILES,
    "columns and arguments": COLUMNS,
    "values the model cannot take": VALUES,
    "models": PROGRAMS,
    "guides": GUIDES,
    "methods and options": METHODS,
    "folders": FOLDERS,
}
