"""Take enhanced multi-frame CT apart: every frame is a slice with its own place and its own rescale."""

from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset

from radiogen.io.dicom.dicom_facts import SliceFile
from radiogen.io.dicom.slices import (
    HU_TYPES,
    DamagedHeaderError,
    NotHuError,
    geometry_of,
    matrix_of,
    native_offset,
    number,
    stored_pixels,
    text_of,
    values_of,
    whole_number,
)


def frames_of(path: Path, header: Dataset, stream: BinaryIO, file_size: int) -> tuple[SliceFile, ...]:
    """The frames of an enhanced CT as slices, in the order of the file.

    Args:
        path: The file.
        header: Its whole data set up to the pixels.
        stream: Stands at the pixel data.
        file_size: In bytes.

    Raises:
        DamagedHeaderError: The frames and their functional groups do not agree, or a place is missing.
        NotHuError: The numbers are no HU.
    """
    count = whole_number(header, "NumberOfFrames") or 1
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != count:
        raise DamagedHeaderError(f"has {count} frames but places for {len(groups)}")
    if not whole_number(header, "Rows") or not whole_number(header, "Columns"):
        raise DamagedHeaderError("has no rows or columns")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    native_offset(header, stream, file_size, count - 1)  # a file that ends early is damaged as a whole
    return tuple(
        _frame(path, header, shared, group, n, native_offset(header, stream, file_size, n))
        for n, group in enumerate(groups)
    )


def _frame(path: Path, header: Dataset, shared: Dataset, group: Dataset, n: int, offset: int) -> SliceFile:
    rescale = _group("PixelValueTransformationSequence", group, shared)
    if text_of(rescale, "RescaleType").upper() not in HU_TYPES:
        raise NotHuError
    measures = _group("PixelMeasuresSequence", group, shared)
    content = _group("FrameContentSequence", group, shared)
    thickness = number(measures, "SliceThickness")
    kernel = text_of(_group("CTReconstructionSequence", group, shared), "ConvolutionKernel")
    frame_type = values_of(_group("CTImageFrameTypeSequence", group, shared), "FrameType")
    image_type = tuple(str(part).upper() for part in frame_type or values_of(header, "ImageType"))
    geometry = geometry_of(
        _group("PlanePositionSequence", group, shared),
        _group("PlaneOrientationSequence", group, shared),
        measures,
    )
    size = (whole_number(header, "Columns") or 0, whole_number(header, "Rows") or 0)
    times = ("TemporalPositionIndex", "FrameAcquisitionNumber")
    cardiac = _group("CardiacSynchronizationSequence", group, shared)
    return SliceFile(
        path=path,
        frame=n,
        patient=str(header.get("PatientID") or "").strip(),
        study_uid=str(header.get("StudyInstanceUID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        frame_uid=str(header.get("FrameOfReferenceUID", "")),
        sop_uid=str(header.get("SOPInstanceUID", "")),
        image_type=image_type,
        size=size,
        **geometry,
        thickness_mm=thickness,
        kernel=kernel,
        has_contrast=bool(header.get("ContrastBolusAgentSequence")),
        instance=None,
        marks=(
            matrix_of(size, geometry),
            f"{thickness:g}" if thickness else "",
            kernel,
            "\\".join(image_type),
            text_of(content, "StackID"),
            f"{text_of(content, times[0])} {text_of(cardiac, 'NominalPercentageOfCardiacPhase')}".strip(),
            text_of(content, times[1]),
            "",
            text_of(_group("CTXRayDetailsSequence", group, shared), "KVP"),
            text_of(content, "FrameAcquisitionDateTime"),
        ),
        pixels=stored_pixels(header, rescale, offset),
    )


def _group(name: str, group: Dataset, shared: Dataset) -> Dataset:
    """A functional group's one item, of the frame or shared by all; empty where there is none."""
    found: Dataset = (group.get(name) or shared.get(name) or [Dataset()])[0]
    return found
