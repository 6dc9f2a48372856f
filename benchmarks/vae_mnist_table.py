"""What ``vae_mnist.py`` leaves: rows and curves as JSON, a table in Markdown, a picture."""

import json
from pathlib import Path
from typing import Any

from cavi_timing import RESULTS, report

STAGES = 8
FEW_DRAWS = 100
PUBLISHED = {
    "vae1": {1: 86.76, 5: 86.47, 50: 86.35},
    "iwae1": {1: 86.76, 5: 85.54, 50: 84.78},
    "vae2": {1: 85.33, 5: 85.01, 50: 84.78},
    "iwae2": {1: 85.33, 5: 83.89, 50: 82.90},
}
Row = dict[str, Any]


def keep(row: Row, curve: Row) -> None:
    """Put a cell in the place of its like in the results."""
    path, curves_path = RESULTS / "vae_mnist.json", RESULTS / "vae_mnist_curves.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    same = ("column", "k", "epochs", "stages", "device")
    report("vae_mnist", [r for r in rows if any(r[key] != row[key] for key in same)] + [row])
    curves = json.loads(curves_path.read_text()) if curves_path.exists() else []
    curves = [c for c in curves if (c["column"], c["k"]) != (row["column"], row["k"])] + [curve]
    curves_path.write_text(json.dumps(curves) + "\n")
    rows = json.loads(path.read_text())["rows"]
    (RESULTS / "vae_mnist.md").write_text(table(rows, curves))
    plot(curves, RESULTS / "vae_mnist.png")


def table(rows: list[Row], curves: list[Row]) -> str:
    """The rows beside the published figures, and the curves at the ends of the stages, in Markdown."""
    lines = [
        "MNIST, negative log-likelihood in nats an image, by an importance-weighted bound of 5000",
        "draws (`benchmarks/vae_mnist.py`), beside Table 1 of Burda, Grosse & Salakhutdinov (ICLR",
        "2016), whose schedule has 3280 epochs. First error: against all test images by as many",
        "draws; second: over the choice of test images.",
        "",
        "| | k | epochs | of the schedule | NLL | published, 3280 epochs |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["column"], row["k"], row["epochs"])):
        lines.append(
            f"| {row['column']} | {row['k']} | {row['epochs']:g} | {row['share of schedule']:.1%} | "
            f"{row['NLL']:.2f} ± {row['error']:.2f} ± {row['error over images']:.2f} | "
            f"{row['published']} |"
        )
    lines += ["", f"By {FEW_DRAWS} draws, after each stage (± over images):", ""]
    stages = [3 ** (i + 1) // 2 for i in range(STAGES)]
    longest = max(len(points) for (*_, points) in (curve.values() for curve in curves))
    lines.append("| epochs | " + " | ".join(str(end) for end in stages[:longest]) + " |")
    lines.append("|---" * (longest + 1) + "|")
    for curve in curves:
        *_, points = curve.values()
        cells = [f"{nll:.2f} ± {error:.2f}" for _, nll, error in points]
        cells += [""] * (longest - len(cells))
        lines.append(f"| {curve['column']}, k = {curve['k']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(curves: list[Row], path: Path) -> None:
    """NLL of the test images after each stage, and minus the training bound of each epoch."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for number, curve in enumerate(curves):
        color, name = f"C{number}", f"{curve['column']}, k = {curve['k']}"
        bounds, (*_, points) = curve["training bound of each epoch"], curve.values()
        losses = [-bound for bound in bounds]
        axes.plot(range(1, len(losses) + 1), losses, color=color, alpha=0.5, lw=1)
        axes.plot([p[0] for p in points], [p[1] for p in points], "o-", color=color, label=name)
        level = PUBLISHED[curve["column"]][curve["k"]]
        axes.axhline(level, color=color, ls=":", lw=1)
    axes.set(
        xscale="log",
        ylim=(80, 115),
        xlabel="epochs",
        ylabel="nats an image",
        title=f"MNIST: test NLL by {FEW_DRAWS} draws (points), minus the training bound (lines),\n"
        "published after 3280 epochs by 5000 draws (dotted)",
    )
    axes.legend()
    figure.savefig(path, dpi=110)
