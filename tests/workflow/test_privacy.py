"""Names of people and machines that are planted everywhere are in no byte of the results."""

from __future__ import annotations

import csv
import getpass
import io
import socket
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from helpers_workflow import REPOSITORY, Run, run_workflow
from hidden_text import where_hidden
from PIL import Image, ImageCms, PngImagePlugin

from slide_files import tissue_picture

pytestmark = pytest.mark.workflow
# No text that is in any library; it stands for a person's name, and for a machine's.
PLANTED = "Quixotl"
APERIO = (
    f"Aperio Image Library v11\r\n1024x1024 (256x256) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
    f"|User = {PLANTED}|Filename = {PLANTED}-case|Patient = {PLANTED}|ScanScope ID = {PLANTED}"
    f"|Title = {PLANTED}|Date = 01/02/20"
)
ARMS = "[identity, reinhard, operator, delivered]"


def write_planted_slide(path: Path) -> None:
    """Write an Aperio slide whose description, tags, profile, label and macro name somebody."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    size = int.from_bytes(profile[:4], "big")
    profile[0:4] = (size + 64).to_bytes(4, "big")
    profile += PLANTED.encode().ljust(64, b"\0")
    custom = [(65000, "s", 0, f"scanned by {PLANTED}", True), (316, "s", 0, PLANTED, True)]
    common = {"photometric": "rgb", "metadata": None, "software": f"{PLANTED} scanner"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tissue_picture(1024, 1),
            tile=(256, 256),
            compression="jpeg",
            compressionargs={"level": 90},
            description=APERIO,
            iccprofile=bytes(profile),
            extratags=custom,
            datetime="2020:01:02 03:04:05",
            **common,
        )
        tiff.write(tissue_picture(1024, 1)[::4, ::4], description=APERIO, **common)
        for name in ("label", "macro"):
            text = f"Aperio Image Library\r\n{name} 200x100 {PLANTED}"
            picture = np.full((100, 200, 3), 77, np.uint8)
            tiff.write(picture, subfiletype=1, description=text, extratags=custom, **common)


def write_planted_image(path: Path, seed: int) -> None:
    """Write a picture whose text chunks or Exif fields name somebody."""
    image = Image.fromarray(tissue_picture(320, seed))
    if path.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", PLANTED)
        text.add_text("Comment", PLANTED, zip=True)
        image.save(path, pnginfo=text)
    else:
        exif = Image.Exif()
        exif[0x013B] = exif[0x010E] = PLANTED
        image.save(path, exif=exif, comment=PLANTED.encode())


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory) -> Run:
    """Run everything on a cohort that tells a name wherever there is room for one."""
    folder = tmp_path_factory.mktemp("private") / f"{PLANTED} run"
    given = folder.parent / f"slides of Dr {PLANTED}"
    for path in (folder, given, given / "tiles", folder.parent / f"{PLANTED}-home"):
        path.mkdir()
    write_planted_slide(given / "a.svs")
    (given / "broken.svs").write_bytes((given / "a.svs").read_bytes()[:5000])
    (given / "text.svs").write_text(f"not a slide but a letter of {PLANTED}")
    write_planted_image(given / "tiles" / "one.png", 2)
    write_planted_image(given / "tiles" / "two.jpg", 3)
    write_planted_image(given / "target.png", 4)
    with open(given / "slides.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["slide", "path"])
        for name in ("a", "broken", "text", "gone"):
            writer.writerow([name, given / f"{name}.svs"])
        writer.writerow(["tiles", given / "tiles"])
    options = [f"slides={given / 'slides.csv'}", f"target={given / 'target.png'}"]
    options += ["mpp=0.5", "allow_failed_slides=true", "tiles={tile_px: 128, max_per_slide: 16}"]
    options += [f"evaluate={{arms: {ARMS}, tiles_per_slide: 4, bootstrap_samples: 50}}"]
    return run_as_somebody(folder, "all", "--config", *options)


def run_as_somebody(folder: Path, *arguments: str) -> Run:
    """Run the workflow as a user, on a host, whose names are planted."""
    home = folder.parent / f"{PLANTED}-home"
    names = dict.fromkeys(["USER", "LOGNAME", "USERNAME", "HOSTNAME", "HOST"], PLANTED)
    return run_workflow(folder, *arguments, **names, HOME=str(home), TMPDIR=str(home))


def private_words() -> list[str]:
    """Return what must not be found: the planted name, and this machine's own."""
    own = {socket.gethostname(), getpass.getuser(), str(REPOSITORY), sys.prefix, str(Path.home())}
    # Short names are words of the language (root), not tell-tale.
    return [PLANTED, *(word for word in sorted(own) if len(word) > 5)]


def test_nothing_personal_is_in_any_byte_of_the_results(planted_run):
    assert planted_run.status == 0, planted_run.text[-4000:]
    results = planted_run.folder / "results"
    assert (results / "normalized/target/a.svs").exists()
    assert (results / "normalized/target/tiles/one.png").exists()
    assert (results / "provenance/ro-crate-metadata.json").exists()
    assert (results / "logs/probe_slide/broken.log").exists()
    assert where_hidden(results, private_words()) == []


def test_no_label_or_macro_is_passed_on(planted_run):
    path = planted_run.folder / "results/normalized/target/a.svs"
    with openslide.OpenSlide(str(path)) as slide:
        assert not {"label", "macro"} & set(slide.associated_images)
        assert slide.color_profile is not None  # numbers are carried, words are not


def test_the_run_can_be_audited_although_it_tells_no_paths(planted_run):
    given = planted_run.folder.parent / f"slides of Dr {PLANTED}"
    options = [f"slides={given / 'slides.csv'}", f"target={given / 'target.png'}"]
    options += ["mpp=0.5", "allow_failed_slides=true", "tiles={tile_px: 128, max_per_slide: 16}"]
    options += [f"evaluate={{arms: {ARMS}, tiles_per_slide: 4, bootstrap_samples: 50}}"]
    audited = run_as_somebody(planted_run.folder, "audit", "--config", *options)
    assert audited.status == 0, audited.text[-4000:]
    assert "Intact: everything is as it was made" in audited.text
    assert where_hidden(planted_run.folder / "results", private_words()) == []


def test_the_search_can_find(tmp_path):
    write_planted_slide(tmp_path / "a.svs")
    write_planted_image(tmp_path / "b.png", 1)
    write_planted_image(tmp_path / "c.jpg", 1)
    (tmp_path / "d.html").write_bytes(
        b"src=data:image/png;base64," + _as_base64(tmp_path / "b.png")
    )
    np.savez_compressed(tmp_path / "e.npz", who=np.array(PLANTED))
    found = {line.split(":")[0] for line in where_hidden(tmp_path, [PLANTED])}
    assert found == {"a.svs", "b.png", "c.jpg", "d.html", "e.npz"}


def _as_base64(path: Path) -> bytes:
    import base64

    return base64.b64encode(io.BytesIO(path.read_bytes()).getvalue())
