"""A picture of descent: from what was given, through every rule, to the products, as SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from stainfuser.provenance.judgement import FINAL_RULES, Judgement
from stainfuser.provenance.ledger import Job, Ledger

GAP = "gap"  # begins the name of the place where an edge passes between boxes
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 54, 46, 22, 24
# Status → (fill, border): readable with colour-blind eyes, and told in words as well.
COLOURS = {
    "intact": ("#eef6f4", "#2a7f6f"),
    "fault": ("#fdeeea", "#c0392b"),
    "given": ("#f3f0f8", "#6b5b95"),
}


@dataclass
class Node:
    """One box: a rule with all its jobs, or what the user gave."""

    name: str
    title: str
    count: int = 0
    faults: int = 0
    kind: str = "rule"
    is_checked: bool = True
    parents: set[str] = field(default_factory=set)

    @property
    def status(self) -> str:
        """Which colours it is painted in."""
        return "fault" if self.faults else ("given" if self.kind == "given" else "intact")

    @property
    def subtitle(self) -> str:
        """Second line: how many, and whether they are intact if that was looked at."""
        noun = "file" if self.kind == "given" else "job"
        counted = f"{self.count} {noun}{'s' if self.count != 1 else ''}"
        if not self.is_checked:
            return counted
        return f"{counted}, {self.faults} not intact" if self.faults else f"{counted}, intact"


def lineage_nodes(ledger: Ledger, judgement: Judgement) -> list[Node]:
    """Return the boxes of a run, rules grouped, parents before children."""
    faulty = {record for one in judgement.findings if one.is_fault for record in one.records}
    blamed = {one.subject for one in judgement.findings if one.is_fault}
    nodes: dict[str, Node] = {}
    given: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for job in judgement.jobs:
        node = nodes.setdefault(job.rule, Node(job.rule, job.rule))
        node.count += 1
        node.faults += job.record in faulty
        node.parents |= {parent.rule for parent in ledger.parents(job)} - {job.rule}
        for title, where in _given(job, ledger):
            given[title].add(where)
            node.parents.add(f"given {title}")
    for title, wheres in given.items():
        node = Node(f"given {title}", title, len(wheres), kind="given")
        node.faults = sum(path in blamed for _, path in wheres)
        nodes[node.name] = node
    for node in nodes.values():
        node.is_checked = judgement.checked > 0
    return list(nodes.values())


def draw_lineage(nodes: Iterable[Node], title: str) -> str:
    """Return the picture as SVG text; edges that also go a longer way are left out."""
    known = {node.name: node for node in nodes}
    ways = _ways(known)
    layers = _layers(known, ways)
    places = _places(ways, layers)
    width = 2 * MARGIN + len(layers) * BOX_WIDTH + (len(layers) - 1) * GAP_X
    rows = max((len(layer) for layer in layers), default=1)
    height = 2 * MARGIN + 30 + rows * (BOX_HEIGHT + GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 6}" font-size="16" fill="#222">{escape(title)}</text>',
    ]
    for (parent, _), stops in sorted(ways.items()):
        points = [places[stop] for stop in stops]
        parts += [_edge(*pair, known[parent].status) for pair in pairwise(points)]
        parts += [_passage(point, known[parent].status) for point in points[1:-1]]
    parts += [_box(node, *places[node.name]) for node in known.values()]
    return "\n".join([*parts, "</svg>", ""])


def _given(job: Job, ledger: Ledger) -> list[tuple[str, tuple[str, str]]]:
    names = {"slide": "slides", "source": "target images", "model_files": "model", "model": "model"}
    found = []
    for item in job.inputs:
        if item.where not in ledger.makers:
            title = "configuration" if item.path == "results/config.yaml" else item.name or "given"
            found.append((names.get(title, title), item.where))
    return found


def _ancestors(known: dict[str, Node]) -> dict[str, set[str]]:
    above: dict[str, set[str]] = {}

    def climb(name: str) -> set[str]:
        if name not in above:
            above[name] = set()  # stands in while a cycle of rules is climbed
            parents = known[name].parents
            above[name] = parents.union(*(climb(parent) for parent in parents))
        return above[name]

    for name in known:
        climb(name)
    return above


def _depths(known: dict[str, Node], above: dict[str, set[str]]) -> dict[str, int]:
    depth: dict[str, int] = {}
    for name in sorted(known, key=lambda one: len(above[one])):
        parents = [depth[parent] for parent in known[name].parents if parent in depth]
        depth[name] = 1 + max(parents, default=-1)
    for name, node in known.items():  # what was given stands beside what first reads it
        readers = [depth[other.name] for other in known.values() if name in other.parents]
        if node.kind == "given" and readers:
            depth[name] = max(0, min(readers) - 1)
    return depth


def _ways(known: dict[str, Node]) -> dict[tuple[str, str], list[str]]:
    """Return (parent, child) → the boxes, and the gaps between boxes, that an edge goes through."""
    above = _ancestors(known)
    depth = _depths(known, above)
    ways = {}
    for node in known.values():
        longer = {one for parent in node.parents for one in above[parent]}
        for parent in node.parents - longer:
            between = range(depth[parent] + 1, depth[node.name])
            gaps = [f"{GAP} {parent} {number}" for number in between]
            ways[parent, node.name] = [parent, *gaps, node.name]
    return ways


def _layers(known: dict[str, Node], ways: dict[tuple[str, str], list[str]]) -> list[list[str]]:
    depth = _depths(known, _ancestors(known))
    for stops in ways.values():
        depth |= {stop: int(stop.rsplit(" ", 1)[1]) for stop in stops if stop.startswith(GAP)}
    layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for name, number in depth.items():
        layers[number].append(name)
    return layers


def _places(
    ways: dict[tuple[str, str], list[str]], layers: list[list[str]]
) -> dict[str, tuple[float, float]]:
    """Place layers left to right; in a layer, boxes lie near the mean height of their parents."""
    before: dict[str, set[str]] = defaultdict(set)
    for stops in ways.values():
        for first, second in pairwise(stops):
            before[second].add(first)
    places: dict[str, tuple[float, float]] = {}
    rows = max((len(layer) for layer in layers), default=1)
    for number, layer in enumerate(layers):

        def mean_y(name: str) -> float:
            ys = [places[parent][1] for parent in before[name] if parent in places]
            return sum(ys) / len(ys) if ys else 0.0

        ordered = sorted(layer, key=lambda name: (mean_y(name), name))
        offset = (rows - len(layer)) * (BOX_HEIGHT + GAP_Y) / 2
        for row, name in enumerate(ordered):
            x = MARGIN + number * (BOX_WIDTH + GAP_X)
            places[name] = (x, MARGIN + 30 + offset + row * (BOX_HEIGHT + GAP_Y))
    return places


def _passage(place: tuple[float, float], status: str) -> str:
    """Return the straight piece of an edge through the gap between two boxes of a layer."""
    x, y = place[0], place[1] + BOX_HEIGHT / 2
    line = f'x1="{x:.0f}" y1="{y:.0f}" x2="{x + BOX_WIDTH:.0f}" y2="{y:.0f}"'
    return f'<line {line} stroke="{_edge_colour(status)}" stroke-width="1.4"/>'


def _edge_colour(status: str) -> str:
    return COLOURS["fault"][1] if status == "fault" else "#9aa5ab"


def _edge(start: tuple[float, float], end: tuple[float, float], status: str) -> str:
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT / 2
    middle = (x2 - x1) / 2
    bends = f"{x1 + middle:.0f},{y1:.0f} {x2 - middle:.0f},{y2:.0f}"
    curve = f"M{x1:.0f},{y1:.0f} C{bends} {x2:.0f},{y2:.0f}"
    return f'<path d="{curve}" fill="none" stroke="{_edge_colour(status)}" stroke-width="1.4"/>'


def _box(node: Node, x: float, y: float) -> str:
    fill, border = COLOURS[node.status]
    weight = 2.4 if node.name in FINAL_RULES or node.status == "fault" else 1.2
    return (
        f'<g><rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" '
        f'fill="{fill}" stroke="{border}" stroke-width="{weight}"/>'
        f'<text x="{x + 10:.0f}" y="{y + 22:.0f}" font-size="13" fill="#222">'
        f"{escape(node.title)}</text>"
        f'<text x="{x + 10:.0f}" y="{y + 41:.0f}" font-size="11" fill="{border}">'
        f"{escape(node.subtitle)}</text></g>"
    )
