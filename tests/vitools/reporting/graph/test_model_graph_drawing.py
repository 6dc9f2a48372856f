"""What stands on the page: nothing overlaps, plates hold their own, arrows keep clear, files are whole."""

import importlib.util
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib import rcParams
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitools.errors import FileError, NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.reporting.graph.draw import draw
from vitools.reporting.graph.drawing import PagePlan, plan
from vitools.reporting.graph.extraction import extract
from vitools.reporting.graph.names import math_name
from vitools.reporting.graph.record import DrawnPlate, GraphNode, ModelGraph
from vitools.reporting.graph.sequences import abridged, sequences

_spec = importlib.util.spec_from_file_location(
    "model_graph_models", Path(__file__).with_name("test_model_graph.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
MODELS = _module.MODELS


def _problem(name: str) -> SimpleNamespace:
    model, args, _ = MODELS[name]
    return SimpleNamespace(model=model, args=args(), kwargs={})


def _box(page: PagePlan, node: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a node with its caption."""
    (x, y), box = page.drawing.centres[node], page.boxes[node]
    half = max(box.rx, box.caption_width / 2)
    return x - half, y - box.ry, x + half, y + box.ry + box.caption_height


def _apart(a: tuple, b: tuple) -> bool:
    return a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def _within(a: tuple, b: tuple) -> bool:
    return a[0] > b[0] and a[1] > b[1] and a[2] < b[2] and a[3] < b[3]


def _bezier(control: np.ndarray) -> np.ndarray:
    """500 points by Bernstein's polynomials (the code under test uses de Casteljau's scheme)."""
    t = np.linspace(0, 1, 500)[:, None]
    n = len(control) - 1
    return sum(math.comb(n, k) * t**k * (1 - t) ** (n - k) * p for k, p in enumerate(control))


def _check(page: PagePlan) -> None:
    graph = page.graph
    boxes = [_box(page, i) for i in range(len(graph.nodes))]
    for a, b in itertools.combinations(boxes, 2):
        assert _apart(a, b)

    held: dict[str, list[str]] = {plate.name: [] for plate in graph.plates}
    rectangles = page.drawing.rectangles
    owners = [p for p in graph.plates for _ in range(_pieces(page)[p.name])]
    for plate, frame, rectangle in zip(owners, page.frames, rectangles, strict=True):
        for i, node in enumerate(graph.nodes):
            if i in frame.nodes:
                assert _within(boxes[i], rectangle)
                held[plate.name].append(node.name)
            else:
                assert _apart(boxes[i], rectangle)
    assert {name: sorted(nodes) for name, nodes in held.items()} == {
        plate.name: sorted(plate.nodes) for plate in graph.plates
    }
    for (f, r), (g, s) in itertools.permutations(zip(page.frames, rectangles, strict=True), 2):
        if not set(f.nodes) & set(g.nodes):
            assert _apart(r, s)
        elif set(f.nodes) < set(g.nodes):
            assert _within(r, s)

    for (u, v), control in zip(page.edges, page.drawing.routes, strict=True):
        points = _bezier(control)
        assert np.allclose(points[[0, -1]], page.drawing.centres[[u, v]])
        for w in set(range(len(boxes))) - {u, v}:
            box, offset = page.boxes[w], points - page.drawing.centres[w]
            assert (np.hypot(offset[:, 0] / box.rx, offset[:, 1] / box.ry) > 1).all()
            beside = np.abs(offset[:, 0]) > box.caption_width / 2
            beyond = (offset[:, 1] < box.ry) | (offset[:, 1] > box.ry + box.caption_height)
            assert (beside | beyond).all()


def _pieces(page: PagePlan) -> dict[str, int]:
    """How many rectangles each plate is drawn as."""
    pieces = {plate.name: 0 for plate in page.graph.plates}
    waiting = list(page.frames)
    for plate in page.graph.plates:
        missing = set(plate.nodes)
        while missing:
            frame = waiting.pop(0)
            missing -= {page.graph.nodes[i].name for i in frame.nodes}
            pieces[plate.name] += 1
    return pieces


@pytest.mark.parametrize("name", MODELS)
def test_pages_obey_the_geometry(name: str) -> None:
    model, args, _ = MODELS[name]
    page = plan(extract(model, args()))
    _check(page)
    assert all(count == 1 for count in _pieces(page).values())


@pytest.mark.parametrize("name", ["eight_schools", "mixture", "crossed"])
def test_pages_with_hyperparameters_obey_the_geometry(name: str) -> None:
    model, args, _ = MODELS[name]
    _check(plan(extract(model, args(), hyperparameters=True)))


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_with_random_plates_obey_the_geometry(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(5, 10))
    names = [f"node{chr(97 + i)}" for i in range(size)]
    edges = [
        (names[i], names[j])
        for i in range(size)
        for j in range(i + 1, size)
        if random.random() < 1.6 / size
    ]
    plates = []
    for p in range(3):  # any subsets: nested, crossed, equal or apart as it happens
        inside = sorted(random.choice(size, int(random.integers(1, size)), replace=False))
        plates.append(DrawnPlate(f"plate{p}", 10 * (p + 1), tuple(names[i] for i in inside)))
    plates.sort(key=lambda plate: -len(plate.nodes))
    nodes = tuple(GraphNode(name, "Normal", "latent") for name in names)
    _check(plan(ModelGraph(nodes, tuple(edges), tuple(plates))))


def test_a_plate_that_cannot_be_one_rectangle_is_drawn_as_two() -> None:
    # Every pair of five nodes shares a plate: ten rectangles that meet only in the nodes do not
    # exist, since K5 is not planar.
    names = "abcde"
    pairs = list(itertools.combinations(names, 2))
    plates = tuple(DrawnPlate("".join(pair), 2, pair) for pair in pairs)
    page = plan(ModelGraph(tuple(GraphNode(n, "Normal", "latent") for n in names), (), plates))
    _check(page)
    assert max(_pieces(page).values()) == 2


def test_long_sequences_are_shortened_and_their_steps_stand_in_line() -> None:
    steps = range(1, 41)
    nodes = [
        GraphNode("tau", "Gamma", "latent"),
        *(GraphNode(f"z_{t}", "Normal", "latent") for t in steps),
    ]
    edges = [(f"z_{t}", f"z_{t + 1}") for t in steps[:-1]] + [("tau", f"z_{t}") for t in steps]
    graph = ModelGraph(tuple(nodes), tuple(edges), (DrawnPlate("units", 5, ("z_3", "z_4", "z_5")),))
    short, _ = abridged(graph)
    assert [node.name for node in short.nodes] == ["tau", "z_1", "z_2", "z_3", "z_4…z_39", "z_40"]
    assert set(short.edges) == {
        *itertools.pairwise(["z_1", "z_2", "z_3", "z_4…z_39", "z_40"]),
        *(("tau", f"z_{t}") for t in (1, 2, 3, 40)),
    }
    assert short.plates[0].nodes == ("z_3", "z_4…z_39")
    page = plan(ModelGraph(graph.nodes, graph.edges, ()))
    _check(page)
    places = {n.name: c for n, c in zip(page.graph.nodes, page.drawing.centres, strict=True)}
    line = [places[name] for name in ("z_1", "z_2", "z_3", "z_4…z_39", "z_40")]
    assert len({round(float(y), 6) for _, y in line}) == 1
    assert all(a[0] < b[0] for a, b in itertools.pairwise(line))


def test_numbers_that_are_only_names_are_no_sequence() -> None:
    nodes = tuple(GraphNode(f"x{i}", "Normal", "latent") for i in range(20))
    assert len(sequences(ModelGraph(nodes, (), ()))) == 1
    jump = ModelGraph(nodes, (("x0", "x5"),), ())
    assert sequences(jump) == []
    assert abridged(jump)[0] == jump


def test_graphs_too_large_for_a_page_are_refused() -> None:
    nodes = tuple(GraphNode(f"a{'b' * i}", "Normal", "latent") for i in range(121))
    with pytest.raises(NotSupportedError, match=r"121 nodes to draw.*up to 120"):
        plan(ModelGraph(nodes, (), ()))


def _texts(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts]
    return {f"{text} #{i}": (b.x0, b.y0, b.x1, b.y1) for i, (text, b) in enumerate(boxes)}


@pytest.mark.parametrize("name", ["two_dice", "topics", "mixture", "crossed"])
def test_texts_are_on_the_page_and_do_not_overlap(name: str) -> None:
    figure = draw(_problem(name))
    texts = _texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in texts.values():
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= width
        assert box[3] <= height
    for a, b in itertools.combinations(texts.values(), 2):
        assert _apart(a, b)


def test_observed_nodes_are_shaded_and_arrows_point_at_borders() -> None:
    figure = draw(_problem("regression"))
    patches = figure.axes[0].patches
    circles = [p for p in patches if type(p).__name__ == "Ellipse"]
    heads = [p for p in patches if type(p).__name__ == "Polygon"]
    shaded = [p for p in circles if p.get_facecolor()[:3] != (1.0, 1.0, 1.0)]
    assert len(circles) == 4
    assert len(shaded) == 1
    assert len(heads) == 3
    (x, y), radius = shaded[0].center, shaded[0].height / 2
    for head in heads:
        tip = head.get_xy()[0]
        assert math.hypot(tip[0] - x, tip[1] - y) == pytest.approx(radius, abs=0.03)


def test_svg_is_well_formed_has_text_and_repeats(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    model, args, _ = MODELS["two_dice"]
    problem = Problem(model, *args())
    draw(problem, first)
    draw(problem, second)
    root = ElementTree.fromstring(first.read_bytes())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("Dirichlet") == 3
    assert texts.count("Categorical") == 3
    assert {"rolls", "rows", "dice", "throws"} <= set(texts)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 40_000


@pytest.mark.parametrize(
    ("suffix", "signature"), [("png", b"\x89PNG\r\n\x1a\n"), ("PDF", b"%PDF-")]
)
def test_other_formats_are_written_whole(tmp_path: Path, suffix: str, signature: bytes) -> None:
    path = tmp_path / f"graph.{suffix}"
    path.write_bytes(b"an older picture")
    draw(_problem("single"), path)
    assert path.read_bytes().startswith(signature)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in '.jpg'; expected .svg, .png or .pdf"):
        draw(_problem("single"), tmp_path / "graph.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot write .*graph.svg"):
        draw(_problem("single"), tmp_path / "file" / "graph.svg")
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(FileError, match=r"taken.svg"):
        draw(_problem("single"), tmp_path / "taken.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.svg"]


def test_drawing_leaves_no_state_behind(tmp_path: Path) -> None:
    settings = dict(rcParams)
    figure = draw(_problem("single"), tmp_path / "graph.svg")
    assert isinstance(figure, Figure)
    assert Gcf.get_all_fig_managers() == []
    assert dict(rcParams) == settings


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pi1", r"$\pi_{1}$"),
        ("rho", r"$\rho$"),
        ("z_12", "$z_{12}$"),
        ("sigma_alpha", r"$\sigma_{\alpha}$"),
        ("mu_region", r"$\mu_{\mathrm{region}}$"),
        ("log_sigma", r"$\mathrm{log}\,\sigma$"),
        ("log", r"$\mathit{log}$"),
        ("rolls", r"$\mathit{rolls}$"),
        ("batting_average2", r"$\mathit{batting\ average}_{2}$"),
        ("L_Omega", r"$L_{\Omega}$"),
        ("cost in $", r"cost in \$"),
        ("___", "___"),
    ],
)
def test_names_are_set_as_mathematics(name: str, formula: str) -> None:
    assert math_name(name) == formula


def test_strange_names_can_be_drawn() -> None:
    def model() -> None:
        for name in ("cost in $", "μ", "a/b", "layer.weight[0]", "_", "2x"):
            pyro.sample(name, dist.Normal(torch.tensor(0.0), 1.0))

    figure = draw(SimpleNamespace(model=model, args=(), kwargs={}))
    FigureCanvasAgg(figure).draw()
    assert len(_texts(figure)) == 12
