"""Exports of a slide: the same pixels for every reader, nothing personal, whole or absent."""

from __future__ import annotations

import numpy as np
import openslide
import pydicom
import pytest
import tifffile

from slide_files import tissue_picture, write_tiff_slide
from stainfuser.errors import InputError
from stainfuser.io import dicom_attributes, dicom_slide, ome_tiff
from stainfuser.io.cohort import resolve_cohort
from stainfuser.io.colour_profile import without_words
from stainfuser.io.encoded_slide import read_encoded
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.slide_layout import SlideSpec
from stainfuser.io.slides import SlideReader
from stainfuser.stages.export_dicom import export_dicom
from stainfuser.stages.export_ome_tiff import export_ome_tiff
from stainfuser.stages.probe_slide import probe_slide

MPP, POWER = 0.2498, 40.0
WIDTH_PX, HEIGHT_PX = 2500, 1700
HASH = "ab" * 32


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """Return a written slide of three levels, with a profile, hashes and blank tiles."""
    path = tmp_path_factory.mktemp("exported") / "my slide.svs"
    picture = np.full((HEIGHT_PX, WIDTH_PX, 3), 243, np.uint8)
    picture[200:1500, 100:1400] = tissue_picture(1300)
    stamp = {"StainFuser source_sha256": HASH, "StainFuser config_sha256": "cd" * 32}
    profile = dicom_attributes.srgb_profile()
    spec = SlideSpec(WIDTH_PX, HEIGHT_PX, MPP, POWER, icc_profile=profile, stamp=stamp)
    with PyramidWriter(path, path.parent / "work", spec, key="") as writer:
        for block in writer.remaining():
            rows = picture[block.y_px : block.y_px + block.height_px]
            writer.write(block, rows[:, block.x_px : block.x_px + block.width_px])
        writer.finish()
    return path


@pytest.fixture(scope="module")
def ome_path(slide_path):
    path = slide_path.parent / "ome" / "my slide.ome.tif"
    export_ome_tiff(slide_path=slide_path, export_path=path)
    return path


@pytest.fixture(scope="module")
def dicom_dir(slide_path):
    folder = slide_path.parent / "dicom" / "my slide"
    export_dicom(slide_path=slide_path, export_dir=folder)
    return folder


def levels_of(path):
    """Return the pixels of all levels, as OpenSlide shows them."""
    with openslide.OpenSlide(path) as slide:
        return [
            np.asarray(slide.read_region((0, 0), level, size))[..., :3]
            for level, size in enumerate(slide.level_dimensions)
        ]


def assert_same(found, expected):
    assert [level.shape for level in found] == [level.shape for level in expected]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_tifffile_finds_every_level_of_the_ome_tiff(slide_path, ome_path):
    with tifffile.TiffFile(ome_path) as tiff:
        assert tiff.is_ome and tiff.is_bigtiff and len(tiff.series) == 1
        levels = tiff.series[0].levels
        assert_same([level.asarray() for level in levels], levels_of(slide_path))
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert tiff.pages[0].tags["InterColorProfile"].value == dicom_attributes.srgb_profile()
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == MPP
    assert pixels["PhysicalSizeXUnit"] == "µm"


def test_libvips_finds_every_level_of_the_ome_tiff(slide_path, ome_path):
    pyvips = pytest.importorskip("pyvips")
    for number, expected in enumerate(levels_of(slide_path)):
        level = pyvips.Image.new_from_file(str(ome_path), subifd=number - 1)
        np.testing.assert_array_equal(level.numpy()[..., :3], expected)
    assert 1000 / pyvips.Image.new_from_file(str(ome_path)).xres == pytest.approx(MPP, rel=1e-4)


def test_openslide_reads_the_full_size_of_the_ome_tiff(slide_path, ome_path):
    assert_same(levels_of(ome_path), levels_of(slide_path)[:1])


def test_openslide_reads_the_dicom_as_it_reads_the_slide(slide_path, dicom_dir):
    path = dicom_dir / "level-0.dcm"
    assert_same(levels_of(path), levels_of(slide_path))
    with SlideReader(path) as reader:
        assert (reader.vendor, reader.objective_power) == ("dicom", POWER)
        assert reader.mpp == pytest.approx(MPP, rel=1e-9)
        assert reader.icc_profile == without_words(dicom_attributes.srgb_profile())
        assert not dict(reader.handle.associated_images)


def test_pydicom_decodes_the_frames(slide_path, dicom_dir):
    level = pydicom.dcmread(dicom_dir / "level-1.dcm")
    frames = list(pydicom.encaps.generate_frames(level.PixelData))
    expected = read_encoded(slide_path).levels[1]
    assert len(frames) == level.NumberOfFrames == len(expected.offsets)
    assert [frame.rstrip(b"\0") for frame in frames] == [t.rstrip(b"\0") for t in expected.tiles()]


def test_larger_levels_have_a_table_of_64_bits(slide_path, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_slide, "_LARGEST_BASIC_TABLE", 1000)
    export_dicom(slide_path=slide_path, export_dir=tmp_path / "x")
    assert_same(levels_of(tmp_path / "x" / "level-0.dcm"), levels_of(slide_path))
    level = pydicom.dcmread(tmp_path / "x" / "level-0.dcm")
    assert len(level.ExtendedOffsetTable) == 8 * level.NumberOfFrames


def test_no_patient_no_time_and_no_label_are_told(dicom_dir):
    for path in dicom_dir.iterdir():
        facts = pydicom.dcmread(path, stop_before_pixels=True)
        for name in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "StudyID"):
            assert not getattr(facts, name)
        assert facts.AcquisitionDateTime == dicom_attributes.NO_TIME
        assert facts.ImageType[2] == "VOLUME"
        assert HASH in facts.ImageComments
        assert b"my slide" not in path.read_bytes()


def test_exports_repeat_to_the_byte(slide_path, ome_path, dicom_dir):
    before = [path.read_bytes() for path in [ome_path, *sorted(dicom_dir.iterdir())]]
    export_ome_tiff(slide_path=slide_path, export_path=ome_path)
    export_dicom(slide_path=slide_path, export_dir=dicom_dir)
    assert [path.read_bytes() for path in [ome_path, *sorted(dicom_dir.iterdir())]] == before


def test_an_exported_dicom_folder_is_a_slide_again(slide_path, dicom_dir, tmp_path):
    entry, *others = resolve_cohort(str(dicom_dir))
    assert not others and entry.name == "my slide" and entry.kind == "slide"
    limits = {"timeout_s": 60, "memory_mb": 4000, "max_side_px": 10**6, "min_tissue_fraction": 0.0}
    limits |= {"mpp_override": None, "mpp_default": None}
    record = tmp_path / "probe.json"
    probe_slide(slide=entry.name, slide_path=entry.path, json_path=record, **limits)
    assert '"verdict": "ok"' in record.read_text() and '"vendor": "dicom"' in record.read_text()


@pytest.mark.parametrize("export", ["ome_tiff", "dicom"])
def test_an_export_that_fails_leaves_nothing_under_its_name(
    slide_path, tmp_path, monkeypatch, export
):
    def fail(*_):
        raise KeyboardInterrupt

    module = {"ome_tiff": ome_tiff, "dicom": dicom_slide}[export]
    write = module._write_level
    calls = []

    def first_only(*given, **kind):
        calls.append(given)
        return write(*given, **kind) if len(calls) == 1 else fail()

    monkeypatch.setattr(module, "_write_level", first_only)
    final = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        if export == "dicom":
            export_dicom(slide_path=slide_path, export_dir=final)
        else:
            export_ome_tiff(slide_path=slide_path, export_path=final)
    assert len(calls) == 2 and not final.exists()


def test_a_slide_of_others_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "other.tiff"
    write_tiff_slide(path, tissue_picture(400), mpp=0.5)
    with pytest.raises(InputError, match="is not a slide that this package wrote") as caught:
        export_dicom(slide_path=path, export_dir=tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
