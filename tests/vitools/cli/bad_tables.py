"""Malformed tables, as :mod:`bad_inputs`: cells, separators, names, what is missing."""

from bad_inputs import fit

MISSING = "x,y\n1.5,2\n2.5,\n,4\n"


def line(*more):
    """``vitools fit`` of a line, whose arguments are x and y, and scale with a default."""
    return fit("line", *more)


CASES = {
    "words among numbers": (line(), "x,y\n1,2\ntwo,3\n", ["line 3, column 'x'", "'two'"]),
    "boolean among numbers": (line(), "x,y\n1,2\n1,true\n", ["line 3, column 'y'", "'true'"]),
    "per cent": (line(), "x,y\n1,5 %\n", ["line 2, column 'y'", "'5 %'", "digits"]),
    "currency": (line(), "x,y\n1,$5\n", ["line 2, column 'y'", "'$5'"]),
    "thousands and decimal comma": (line(), "x;y\n1;1.234,5\n", ["column 'y'", "'1.234,5'"]),
    "thousands in quotes": (line(), 'x,y\n1,"1,234"\n', ["column 'y'", "'1,234'", "thousands"]),
    "ambiguous commas": (line(), "x;y\n1;1,234\n2;5,678\n", ["column 'y'", "decimal mark"]),
    "minus sign of a typesetter": (line(), "x,y\n1,−1\n2,−3\n", ["column 'y'", "'−1'", "minus"]),
    "a byte that is no text": (line(), "x,y\n1,2\0\n", ["column 'y'", "expected a number"]),
    "comment before the header": (line(), "# mine\nx,y\n1,2\n", ["no column 'x'", "# mine"]),
    "comma at the end of rows": (line(), "x,y\n1,2,\n", ["line 2: 3 cells, expected 2"]),
    "integer above a double": (line(), f"x,y\n1,1{'0' * 400}\n", ["column 'y'", "is not finite"]),
    "spaces in a number": (line(), "x,y\n1,1 000\n", ["column 'y'", "'1 000'"]),
    "ISO date": (line(), "x,y\n1,2020-01-02\n", ["column 'y'", "a date", "days since"]),
    "German date": (line(), "x,y\n1,2.1.2020\n", ["column 'y'", "a date"]),
    "American date": (line(), "x,y\n1,1/2/2020\n", ["column 'y'", "a date"]),
    "time stamp": (line(), "x,y\n1,2020-01-02 10:30:00\n", ["column 'y'", "a date"]),
    "time of day": (line(), "x,y\n1,10:30\n", ["column 'y'", "a time"]),
    "minus infinity": (line(), "x,y\n1,-inf\n", ["'-inf' is not finite"]),
    "infinity in words": (line(), "x,y\n1,Infinity\n", ["'Infinity' is not finite"]),
    "UTF-16": (line(), "x,y\n1,2\n".encode("utf-16"), ["not UTF-8", "UTF-16"]),
    "latin-1 header": (line(), "x,y,größe\n1,2,3\n".encode("latin-1"), ["not UTF-8", "latin-1"]),
    "only a byte-order mark": (line(), b"\xef\xbb\xbf", ["line 1", "blank line"]),
    "blank header": (line(), ",,\n1,2,3\n", ["line 1", "blank line"]),
    "header of numbers with a gap": (line(), ",1,2\n1,2,3\n", ["line 1", "got numbers"]),
    "rows in one cell": (line(), "x|y\n1|2\n", ["no column 'x'", "columns: x|y"]),
    "quotes within a cell": (line(), 'x,y\n1,"2"3\n', ["line 2", "not valid csv"]),
    "used column named twice": (line(), "x,y,y\n1,2,3\n", ["'y' appears twice"]),
    "blank throughout": (line(), "x,y\n1,\n2,\n", ["column 'y'", "in all y 2."]),
    "NA": (line(), "x,y\n1,NA\n", ["column 'y'", "missing", "--missing mask"]),
    "question mark": (line(), "x,y\n1,2\n?,2\n", ["line 3, column 'x'", "missing"]),
    "missing, counted": (line(), MISSING, ["in all x 1, y 1. ", "--missing drop"]),
    "every row dropped": (
        line("--missing", "drop"),
        "x,y\n1,\n,2\n",
        ["every row lacks a value", "x 1 of 2, y 1 of 2"],
    ),
    "mask without an argument": (
        line("--missing", "mask"),
        MISSING,
        ["--missing mask", "no argument 'mask' (or 'x_mask')"],
    ),
    "one column for another argument": (fit("coin"), "flips\n1\n0\n", ["--columns heads=flips"]),
    "name with a space": (fit("coin"), "my heads\n1\n", ["--columns 'heads=my heads'"]),
    "words in the table of an argument": (
        fit("coin"),
        "a,b\n1,oak\n",
        ["column 'b': words", "--columns heads=COLUMN"],
    ),
    "column almost named as an argument": (line(), "x,y,scal\n1,2,3\n", ["mean 'scale'?"]),
    "words outside the support": (fit("coin"), "heads\na\nb\nc\na\n", ["'obs'", "'d.csv'"]),
}
