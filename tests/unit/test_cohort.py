"""From what the user names to slides with names: folders, globs, tables, single files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io.cohort import resolve_cohort
from stainfuser.io.kinds import kind_of, list_images


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def _names(slides: str | Path, base: Path | str = ".") -> list[tuple[str, str]]:
    return [(entry.name, entry.kind) for entry in resolve_cohort(slides, base)]


def _table(folder: Path, text: str, name: str = "slides.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_a_folder_gives_its_slides_by_name(tmp_path):
    _touch(tmp_path, "b.svs", "a c.ndpi", "Ä.MRXS", "ignored.txt", ".hidden.svs", "._a.svs")
    _touch(tmp_path, "Ä/Slidedat.ini")
    (tmp_path / "folder.svs").mkdir()
    assert _names(tmp_path) == [
        ("a c", "slide"),
        ("b", "slide"),
        ("folder", "slide"),
        ("Ä", "slide"),
    ]


def test_images_beside_slides_are_not_slides(tmp_path):
    _touch(tmp_path, "a.svs")
    _image(tmp_path / "reference.png")
    assert _names(tmp_path) == [("a", "slide")]


def test_a_folder_of_images_is_one_entry(tmp_path):
    for name in ("2.png", "1.jpg", "3.JPEG", ".hidden.png"):
        _image(tmp_path / "my tiles" / name.lower())
    (entry,) = resolve_cohort(tmp_path / "my tiles")
    assert (entry.name, entry.kind, entry.path) == ("my tiles", "images", tmp_path / "my tiles")
    assert [path.name for path in list_images(entry.path)] == ["1.jpg", "2.png", "3.jpeg"]


def test_globs(tmp_path):
    _touch(tmp_path, "x/1.svs", "x/2.svs", "y/3.svs", "y/notes.txt")
    for name in ("t/a1.png", "t/a2.png", "t/b1.png"):
        _image(tmp_path / name)
    assert [name for name, _ in _names("*/*.svs", tmp_path)] == ["1", "2", "3"]
    assert [name for name, _ in _names("**/*.svs", tmp_path)] == ["1", "2", "3"]
    assert _names("y/*", tmp_path) == [("3", "slide")]
    assert _names("t/*.png", tmp_path) == [("t", "images")]
    assert _names("t/a*.png", tmp_path) == [("a1", "images"), ("a2", "images")]
    assert _names("*", tmp_path) == [
        ("1", "slide"),
        ("2", "slide"),
        ("3", "slide"),
        ("t", "images"),
    ]
    assert _names("**", tmp_path) == _names("*", tmp_path)


def test_one_file_and_a_name_with_brackets(tmp_path):
    _touch(tmp_path, "a [1].svs", "odd.xyz")
    _image(tmp_path / "b.png")
    assert _names("a [1].svs", tmp_path) == [("a [1]", "slide")]
    assert _names(tmp_path / "odd.xyz") == [("odd", "slide")]
    assert _names(tmp_path / "b.png") == [("b", "images")]


def test_dicom_files_of_a_folder_are_one_slide(tmp_path):
    _touch(tmp_path, "case 1/1.dcm", "case 1/2.dcm", "case 2/1.dcm")
    entries = resolve_cohort("*/*.dcm", tmp_path)
    assert [entry.name for entry in entries] == ["case 1", "case 2"]
    assert entries[0].path.name == "1.dcm"
    table = _table(tmp_path, "slide,path\ns,case 1\n")
    assert resolve_cohort(table)[0].path == tmp_path / "case 1" / "1.dcm"


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiled_tiffs_are_slides_and_others_images(tmp_path, bigtiff, byteorder):
    pixels, options = np.zeros((64, 64, 3), np.uint8), {"bigtiff": bigtiff, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "tiled.tif", pixels, tile=(32, 32), **options)
    tifffile.imwrite(tmp_path / "plain.tiff", pixels, **options)
    assert kind_of(tmp_path / "tiled.tif") == "slide"
    assert kind_of(tmp_path / "plain.tiff") == "images"


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"text" * 9])
def test_damaged_tiffs_are_left_to_the_probe(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert kind_of(tmp_path / "a.tif") == "slide"


def test_a_table_with_everything(tmp_path):
    _image(tmp_path / "tiles" / "1.png")
    table = _table(
        tmp_path,
        "\ufeffslide , path,mpp,site,scanner,split,target\n"
        '"a ""b"" façade",x/1.svs,0.25,Oslo,,train,red\n'
        "\n"
        "t,tiles,,,,,\n"
        f"abs,{tmp_path}/2.svs,,,Leica,,\n",
    )
    by_name = {entry.name: entry for entry in resolve_cohort(table)}
    first = by_name['a "b" façade']
    assert (first.path, first.mpp, first.site) == (tmp_path / "x/1.svs", 0.25, "Oslo")
    assert (first.scanner, first.split, first.target) == (None, "train", "red")
    assert (by_name["t"].kind, by_name["t"].mpp) == ("images", None)
    assert by_name["abs"].path == tmp_path / "2.svs"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.tsv", "slide\tpath\nx\ty.svs\n"), ("a.csv", "slide;path\nx;y.svs\n")],
)
def test_other_delimiters(tmp_path, name, text):
    assert _names(_table(tmp_path, text, name)) == [("x", "slide")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks column.*'slide', 'path'"),
        ("slide\na\n", "lacks column.*'path'"),
        ("slide,path,stain\na,b.svs,HE\n", "unknown column.*'stain'"),
        ("slide,path,path\na,b.svs,c.svs\n", "repeats column.*'path'"),
        ("slide,path\n", "no rows"),
        ("slide,path\na,b.svs,c\n", "line 2: 3 fields, expected 2"),
        ("slide,path\na,b.svs\n,c.svs\n", "line 3: the column slide is empty"),
        ("slide,path\na,\n", "column path is empty"),
        ("slide,path,mpp\na,b.svs,40x\n", "line 2: mpp is '40x'"),
        ("slide,path,mpp\na,b.svs,250\n", "mpp is '250', expected 0.05 to 20"),
        ("slide,path,mpp\na,b.svs,nan\n", "mpp is 'nan'"),
        ("slide,path\na,b.svs\na,c.svs\n", "slide 'a': two slides have this name"),
        ("slide,path\na/b,b.svs\n", "'a/b': a slide name cannot contain '/'"),
        ("slide,path\na{b},b.svs\n", "cannot contain '{' '}'"),
        ("slide,path\n..,b.svs\n", "cannot be blank"),
        (f"slide,path\n{'ä' * 150},b.svs\n", "longer than 200 bytes"),
        ('slide,path\n"a\nb",b.svs\n', "cannot contain"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        resolve_cohort(_table(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_table_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(InputError, match="no such slide table"):
        resolve_cohort(tmp_path / "none.csv")
    with pytest.raises(InputError, match="UTF-8"):
        resolve_cohort(_table(tmp_path, "slide,path\nfaçade,b.svs\n", encoding="latin-1"))


def test_missing_and_empty_files_of_a_table_stay(tmp_path):
    _touch(tmp_path, "zero.svs", "zero.png")
    table = _table(tmp_path, "slide,path\na,zero.svs\nb,gone.svs\nc,zero.png\nd,gone.tif\n")
    assert _names(table) == [("a", "slide"), ("b", "slide"), ("c", "images"), ("d", "slide")]


def test_two_files_of_one_stem_name_both(tmp_path):
    _touch(tmp_path, "a.svs", "a.ndpi")
    with pytest.raises(InputError, match=r"a\.ndpi and .*a\.svs.*slide table"):
        resolve_cohort(tmp_path)


def test_nothing_found_says_what_was_expected(tmp_path):
    _touch(tmp_path, "notes.txt", "sub/a.svs")
    for slides, words in ((".", r"\*\*/\*\.svs"), ("*.svs", "quote"), ("gone", "no such file")):
        with pytest.raises(InputError, match=words) as error:
            resolve_cohort(slides, tmp_path)
        assert ".ndpi" in str(error.value)


@pytest.mark.parametrize("form", ["table", "folder", "glob"])
def test_ten_thousand_slides_take_about_a_second(tmp_path, form):
    if form == "table":
        rows = "".join(f"s{i},slides/{i}.tif,0.25\n" for i in range(10_000))
        slides = _table(tmp_path, f"slide,path,mpp\n{rows}")
    else:
        for i in range(10_000):
            (tmp_path / f"{i}.tif").touch()
        slides = tmp_path if form == "folder" else tmp_path / "*.tif"
    start = time.process_time()
    assert len(resolve_cohort(slides)) == 10_000
    assert time.process_time() - start < 2.5


def test_resolving_imports_no_heavy_library(repository):
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import stainfuser.io.cohort; "
        "print(sorted({'numpy', 'pandas', 'tifffile', 'openslide', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
