"""Loaders of outlined nuclei: what is read, and one sentence for what cannot be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io.nucleus_formats import read_nucleus_set

SQUARE = np.array([(4, 6), (12, 6), (12, 10), (4, 10)])


def conic(folder: Path, **changes: np.ndarray | str | None) -> Path:
    """Write three patches of 16 px in the challenge's layout; `changes` replace or remove parts."""
    labels = np.zeros((3, 16, 16, 2), np.uint16)
    labels[0, 2:6, 2:6] = 1, 2
    labels[2, 8:12, 1:5] = 7, 3
    parts = {
        "images.npy": np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8),
        "labels.npy": labels,
        "counts.csv": "a,b,c\n0,1,0\n0,0,0\n0,0,1\n",
        "patch_info.csv": "patch_info\nglas_1-0000\nglas_1-0001\ncrag_2-0000\n",
    } | {name.replace("_npy", ".npy").replace("_csv", ".csv"): v for name, v in changes.items()}
    for name, content in parts.items():
        if isinstance(content, str):
            (folder / name).write_text(content)
        elif content is not None:
            np.save(folder / name, content)
    return folder


def monuseg(folder: Path, name: str = "TCGA-1", xml: str | None = None) -> Path:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in SQUARE)
    xml = xml or (
        f"<Annotations><Annotation><Regions><Region><Vertices>{vertices}</Vertices></Region>"
        "</Regions></Annotation></Annotations>"
    )
    (folder / "Tissue Images").mkdir(exist_ok=True)
    (folder / "Annotations").mkdir(exist_ok=True)
    image = np.full((32, 24, 3), 200, np.uint8)
    Image.fromarray(image).save(folder / "Tissue Images" / f"{name}.tif")
    (folder / "Annotations" / f"{name}.xml").write_text(xml)
    return folder


def archive(path: Path, rois: bytes | None = None, images: int = 1) -> Path:
    inner, image = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        zipped.writestr("0001.roi", roifile.ImagejRoi.frompoints(SQUARE).tobytes())
    Image.fromarray(np.full((32, 24, 3), 200, np.uint8)).save(image, "TIFF")
    with zipfile.ZipFile(path, "w") as zipped:
        for number in range(images):
            zipped.writestr(f"tile{number}.tif", image.getvalue())
        zipped.writestr("RoiSet.zip", inner.getvalue() if rois is None else rois)
        zipped.writestr("Centroid.txt", "1 x 2 um")
    return path.parent


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        found = read_nucleus_set(folder)
        for index in range(len(found)):
            found.read(index)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_conic_is_read_as_it_is_published(tmp_path):
    found = read_nucleus_set(conic(tmp_path))
    assert (found.name, found.classes, found.mpp, len(found)) == ("conic", ("a", "b", "c"), 0.5, 3)
    assert [group for _, group in found.members] == ["glas_1", "glas_1", "crag_2"]
    patch = found.read(2)
    assert patch.rgb.dtype == np.uint8 and patch.labels.dtype == np.int32
    assert patch.labels[9, 2].tolist() == [7, 3] and patch.labels.sum() == 16 * 10
    # An image without nuclei is an image.
    assert found.read(1).labels.max() == 0


def test_conic_without_tables_has_the_challenges_classes(tmp_path):
    found = read_nucleus_set(conic(tmp_path, counts_csv=None, patch_info_csv=None))
    assert len(found.classes) == 6 and found.classes[1] == "epithelial"
    assert len({group for _, group in found.members}) == 3


def test_whole_numbers_in_floating_point_are_numbers(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.float64)
    patch = read_nucleus_set(conic(tmp_path, images_npy=images)).read(0)
    assert np.array_equal(patch.rgb, images[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images_npy": None}, "there is no such file"),
        ({"images_npy": np.zeros((3, 16, 16), np.uint8)}, "shape (3, 16, 16)"),
        ({"images_npy": np.zeros((3, 16, 16, 4), np.uint8)}, "(N, H, W, 3)"),
        ({"images_npy": np.zeros((3, 16, 16, 3), bool)}, "holds bool"),
        ({"images_npy": np.full((3, 16, 16, 3), 0.5)}, "float64 in [0.5, 0.5]"),
        ({"images_npy": np.full((3, 16, 16, 3), 300, np.uint16)}, "uint16 in [300, 300]"),
        ({"images_npy": np.array([{}], object)}, "not an intact array"),
        ({"images_npy": "no array"}, "not an intact array"),
        ({"images_npy": np.zeros((2, 16, 16, 3), np.uint8)}, "does not go with (2, 16, 16, 3)"),
        ({"labels_npy": np.zeros((3, 8, 8, 2), np.uint8)}, "does not go with"),
        ({"labels_npy": np.zeros((3, 16, 16, 3), np.uint8)}, "(N, H, W, 2)"),
        ({"labels_npy": np.full((3, 16, 16, 2), -1)}, "in [-1, -1]"),
        ({"labels_npy": np.full((3, 16, 16, 2), 4, np.uint8)}, "has class 4, and there are 3"),
        ({"labels_npy": np.tile(np.uint8([1, 0]), (3, 16, 16, 1))}, "nuclei without a class"),
        ({"counts_csv": "a,b,c\n1,2,3\n"}, "1 rows, and images.npy 3"),
        ({"counts_csv": "a,a,c\n0,0,0\n0,0,0\n0,0,0\n"}, "name each class once"),
        ({"patch_info_csv": "patch_info\nglas_1-0000\n"}, "names 1 patches"),
    ],
)
def test_bad_conic_arrays_are_refused_in_one_sentence(tmp_path, changes, said):
    assert said in refusal(conic(tmp_path, **changes))


def test_monuseg_outlines_become_labels(tmp_path):
    found = read_nucleus_set(monuseg(tmp_path))
    assert (found.name, found.classes, found.mpp) == ("monuseg", ("nucleus",), 0.25)
    image = found.read(0)
    assert image.name == "TCGA-1" and image.labels.shape == (32, 24, 2)
    rows, columns = np.nonzero(image.labels[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 4, 12)
    assert np.array_equal(image.labels[..., 0] > 0, image.labels[..., 1] == 1)


def test_an_xml_without_regions_is_an_image_without_nuclei(tmp_path):
    assert read_nucleus_set(monuseg(tmp_path, xml="<Annotations/>")).read(0).labels.max() == 0


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<Annotations>", "not readable XML"),
        ("<Other/>", "its root is Other"),
        ("<Annotations><Region><Vertex X='1'/></Region></Annotations>", "without a number"),
        ("<Annotations><Region><Vertex X='a' Y='1'/></Region></Annotations>", "without a number"),
    ],
)
def test_bad_xml_is_refused_in_one_sentence(tmp_path, xml, said):
    assert said in refusal(monuseg(tmp_path, xml=xml))


@pytest.mark.parametrize("lacking", ["Annotations/TCGA-2.xml", "Tissue Images/TCGA-2.tif"])
def test_images_and_outlines_that_do_not_pair_are_named(tmp_path, lacking):
    monuseg(monuseg(tmp_path), "TCGA-2")
    (tmp_path / lacking).unlink()
    assert "TCGA-2 has" in refusal(tmp_path)


def test_an_imagej_archive_becomes_labels(tmp_path):
    found = read_nucleus_set(archive(tmp_path / "slide.zip"))
    image = found.read(0)
    assert (found.name, image.name, image.rgb.shape) == ("imagej", "slide", (32, 24, 3))
    rows, columns = np.nonzero(image.labels[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 4, 12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rois": b"no archive"}, "not an intact archive"),
        ({"images": 2}, "it holds 2 files of the kind image"),
        ({"images": 0}, "it holds 0 files"),
    ],
)
def test_bad_archives_are_refused_in_one_sentence(tmp_path, options, said):
    assert said in refusal(archive(tmp_path / "slide.zip", **options))


def test_a_damaged_outline_is_named(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        zipped.writestr("0001.roi", b"Iout" + b"\0" * 9)
    assert "outline cannot be read" in refusal(archive(tmp_path / "a.zip", rois=inner.getvalue()))


def test_a_folder_of_none_of_these_is_refused(tmp_path):
    assert "neither images.npy" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "missing")


def test_real_archives_hold_the_nuclei_their_table_names(shared_data):
    found = read_nucleus_set(shared_data / "nuclei")
    counts = [len(np.unique(found.read(index).labels[..., 0])) - 1 for index in range(len(found))]
    # One of the 117 outlines of the second lies within another.
    assert counts == [59, 116]
