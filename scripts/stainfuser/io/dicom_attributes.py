"""What a DICOM whole-slide image says of itself (VL Whole Slide Microscopy Image, PS3.3 A.32.8).

Nothing here names a patient, a place or a time: what the standard wants filled is a placeholder or
follows from the hashes of what made the slide.
"""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import VLWholeSlideMicroscopyImageStorage, generate_uid

from stainfuser import __version__
from stainfuser.io.colour_profile import without_words
from stainfuser.io.encoded_slide import EncodedLevel, EncodedSlide
from stainfuser.io.slide_layout import SOFTWARE

# The standard wants a time of acquisition, and the slide's own is not copied.
NO_TIME = "19000101000000"
# A section is about this thick; the standard wants a number.
THICKNESS_UM = 4.0
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_ILLUMINATION = ("111744", "DCM", "Brightfield illumination")
_FULL_SPECTRUM = ("414298005", "SCT", "Full Spectrum")
_SLIDE_CONTAINER = ("433466003", "SCT", "Microscope slide")


def describe_level(slide: EncodedSlide, number: int) -> Dataset:
    """Return all attributes of a level, number 0 being the full size, but its pixels."""
    level = slide.levels[number]
    facts = Dataset()
    facts.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    facts.SOPInstanceUID = _uid(slide, f"level {number}")
    for name in _EMPTY:
        setattr(facts, name, "")
    _add_series(facts, slide)
    _add_specimen(facts, slide)
    facts.InstanceNumber = number + 1
    kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
    facts.ImageType = kind
    _add_pixels(facts, level)
    _add_geometry(facts, slide, level, kind)
    _add_optics(facts, slide)
    return facts


def _uid(slide: EncodedSlide, purpose: str) -> str:
    """Return the identifier that this slide's parts of a purpose always get."""
    size_px = (slide.levels[0].width_px, slide.levels[0].height_px)
    return generate_uid(entropy_srcs=[purpose, str(size_px), *_hashes(slide)])


def _hashes(slide: EncodedSlide) -> list[str]:
    return [f"{name} {value}" for name, value in sorted(slide.stamp.items())]


def _add_series(facts: Dataset, slide: EncodedSlide) -> None:
    facts.StudyInstanceUID = _uid(slide, "study")
    facts.SeriesInstanceUID = _uid(slide, "series")
    facts.PyramidUID = _uid(slide, "pyramid")
    facts.FrameOfReferenceUID = _uid(slide, "frame of reference")
    facts.PositionReferenceIndicator = "SLIDE_CORNER"
    facts.SeriesNumber = 1
    facts.Modality = "SM"
    facts.Manufacturer = SOFTWARE.partition(" ")[0]
    facts.ManufacturerModelName = SOFTWARE.partition(" ")[0]
    facts.DeviceSerialNumber = "none"
    facts.SoftwareVersions = __version__
    facts.AcquisitionDateTime = NO_TIME
    facts.ContentDate, facts.ContentTime = NO_TIME[:8], NO_TIME[8:]
    facts.ImageComments = "; ".join(_hashes(slide))


def _add_specimen(facts: Dataset, slide: EncodedSlide) -> None:
    container = slide.stamp.get("source_sha256", "")[:16] or "unknown"
    facts.ContainerIdentifier = container
    facts.IssuerOfTheContainerIdentifierSequence = Sequence()
    facts.ContainerTypeCodeSequence = [_code(_SLIDE_CONTAINER)]
    facts.AcquisitionContextSequence = Sequence()
    specimen = Dataset()
    specimen.SpecimenIdentifier = container
    specimen.SpecimenUID = _uid(slide, "specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence()
    specimen.SpecimenPreparationSequence = Sequence()
    facts.SpecimenDescriptionSequence = [specimen]


def _add_pixels(facts: Dataset, level: EncodedLevel) -> None:
    facts.SamplesPerPixel = 3
    # The streams are YCbCr. Of such, the standard knows for JPEG only this one; whether colour is
    # subsampled (here it is not), decoders read from the stream itself.
    facts.PhotometricInterpretation = "YBR_FULL_422"
    facts.PlanarConfiguration = 0
    facts.NumberOfFrames = len(level.offsets)
    facts.Rows = facts.Columns = level.tile_px
    facts.BitsAllocated = facts.BitsStored = 8
    facts.HighBit = 7
    facts.PixelRepresentation = 0
    facts.LossyImageCompression = "01"
    facts.LossyImageCompressionMethod = "ISO_10918_1"
    raw = 3 * level.tile_px**2 * len(level.counts)
    facts.LossyImageCompressionRatio = round(raw / sum(level.counts), 2)
    facts.BurnedInAnnotation = facts.SpecimenLabelInImage = "NO"
    facts.VolumetricProperties = "VOLUME"


def _add_geometry(
    facts: Dataset, slide: EncodedSlide, level: EncodedLevel, kind: list[str]
) -> None:
    um_per_px = slide.mpp * level.downsample
    facts.TotalPixelMatrixColumns = level.width_px
    facts.TotalPixelMatrixRows = level.height_px
    facts.TotalPixelMatrixFocalPlanes = 1
    facts.ImagedVolumeWidth = round(level.width_px * um_per_px / 1000, 6)
    facts.ImagedVolumeHeight = round(level.height_px * um_per_px / 1000, 6)
    facts.ImagedVolumeDepth = THICKNESS_UM
    facts.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    facts.TotalPixelMatrixOriginSequence = [origin]
    facts.DimensionOrganizationType = "TILED_FULL"
    dimensions = Dataset()
    dimensions.DimensionOrganizationUID = _uid(slide, "dimensions")
    facts.DimensionOrganizationSequence = [dimensions]
    measures, frame_type, path = Dataset(), Dataset(), Dataset()
    spacing = float(f"{um_per_px / 1000:.12g}")
    measures.PixelSpacing = [spacing, spacing]
    measures.SliceThickness = THICKNESS_UM / 1000
    frame_type.FrameType = kind
    path.OpticalPathIdentifier = "1"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    shared.OpticalPathIdentificationSequence = [path]
    facts.SharedFunctionalGroupsSequence = [shared]


def _add_optics(facts: Dataset, slide: EncodedSlide) -> None:
    facts.FocusMethod = "AUTO"
    facts.ExtendedDepthOfField = "NO"
    facts.NumberOfOpticalPaths = 1
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = [_code(_ILLUMINATION)]
    path.IlluminationColorCodeSequence = [_code(_FULL_SPECTRUM)]
    path.ICCProfile = slide.icc_profile or srgb_profile()
    if slide.objective_power:
        path.ObjectiveLensPower = slide.objective_power
    facts.OpticalPathSequence = [path]


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """Return sRGB's profile, which the standard wants where a slide has none; without its date."""
    content = without_words(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert content is not None
    return content + bytes(len(content) % 2)


def _code(entry: tuple[str, str, str]) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = entry
    return code
