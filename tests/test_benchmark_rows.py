"""Long benchmarks keep their rows: what is stored is not computed again, a torn line is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from resumable import compute, rows

KEYS = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_run_goes_on_where_it_was(tmp_path):
    store, calls = tmp_path / "new" / "rows.jsonl", tmp_path / "calls"

    def row(name, number):
        with calls.open("a") as file:
            file.write(f"{name}{number}\n")
        return {"square": number**2}

    half = compute(store, KEYS[:2], ("name", "number"), row, workers=2)
    assert half == [{"name": "a", "number": n, "square": n**2} for n in (1, 2)]
    with store.open("a") as file:
        file.write('{"name": "b", "num')
    assert sorted(rows(store), key=lambda found: found["number"]) == half  # as they were done
    found = compute(store, KEYS, ("name", "number"), row, workers=2, together=2)
    assert [(r["name"], r["number"]) for r in found] == KEYS
    assert sorted(calls.read_text().split()) == ["a1", "a2", "b1", "b2"]
    assert sorted(map(str, rows(store))) == sorted(map(str, found))
