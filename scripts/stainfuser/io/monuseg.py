"""MoNuSeg and what is annotated like it: images, and outlines of nuclei as Aperio's XML.

Each image (``.tif``, ``.png``, ``.svs``) has a file ``<same name>.xml`` somewhere below the same
folder. A region's vertices are x and y in px of the image.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stainfuser.errors import InputError
from stainfuser.io.images import check_file, read_image
from stainfuser.io.nucleus_set import NucleusImage, NucleusSet, Polygon, labels_of_polygons

MPP = 0.25
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".svs")
REMEDY = "give each image its file of outlines, both with the same name"


def read_monuseg(folder: str | Path) -> NucleusSet:
    """Open a folder of images and XML outlines; every image is its own group (its patient's).

    Raises
    ------
    InputError
        An image without outlines or the reverse, two files of one name, or (when it is read) XML
        that is damaged or holds no outline.
    """
    folder = Path(folder)
    images = _by_stem(folder, SUFFIXES)
    outlines = _by_stem(folder, (".xml",))
    for name in sorted(set(images) ^ set(outlines)):
        has, lacks = ("an image", "XML") if name in images else ("XML", "an image")
        path = images.get(name, outlines.get(name))
        raise InputError(path, f"{name} has {has} and no {lacks}", REMEDY)
    names = sorted(images)

    def read(index: int) -> NucleusImage:
        name = names[index]
        rgb = read_image(images[name])
        labels = labels_of_polygons(read_outlines(outlines[name]), *rgb.shape[:2])
        return NucleusImage(name, name, rgb, labels)

    members = tuple((name, name) for name in names)
    return NucleusSet("monuseg", ("nucleus",), MPP, members, read)


def read_outlines(path: str | Path) -> list[Polygon]:
    """Return the outlines, each (N, 2) float64 of x and y, px, of one XML file.

    A file without a region is an image without nuclei. Raises `InputError` for XML that is
    damaged, of another layout or with vertices that are no numbers.
    """
    check_file(Path(path))
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(path, f"not readable XML ({error})", "copy it again") from None
    if root.tag != "Annotations":
        wrong = f"its root is {root.tag}, expected Annotations"
        raise InputError(path, wrong, "give outlines as Aperio ImageScope writes them")
    try:
        return [
            np.array([(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")])
            for region in root.iter("Region")
        ]
    except (KeyError, ValueError) as error:
        wrong = f"a vertex without a number for X and Y ({error})"
        raise InputError(path, wrong, "export the outlines again") from None


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in found:
                wrong = f"there is {found[path.stem].name} of the same name"
                raise InputError(path, wrong, "keep one of the two")
            found[path.stem] = path
    return found
