"""Enhanced multi-frame CT for tests: one small file of many frames."""

import numpy as np
from dicom_phantom import ORIGIN, SPACING, box_hu, file_of, uid
from pydicom import Dataset

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def item_of(**values):
    item = Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    return item


def enhanced(hu=None, order=None, rescale=None):
    """One file of many frames; `order` is the order in which they lie in it."""
    hu = box_hu() if hu is None else hu
    order = list(range(len(hu)) if order is None else order)
    dataset = file_of(ENHANCED, uid("enhanced"))
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.FrameOfReferenceUID = uid("frame")
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(hu), *hu.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    shared = Dataset()
    shared.PixelMeasuresSequence = [item_of(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])]
    shared.PlaneOrientationSequence = [item_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.CTReconstructionSequence = [item_of(ConvolutionKernel="B40")]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence, planes = [], []
    for k in order:
        slope, intercept = (1, -1024) if rescale is None else rescale(k)
        group = Dataset()
        group.PlanePositionSequence = [
            item_of(ImagePositionPatient=[*ORIGIN[:2], ORIGIN[2] + k * SPACING[2]])
        ]
        group.PixelValueTransformationSequence = [
            item_of(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
        ]
        dataset.PerFrameFunctionalGroupsSequence.append(group)
        planes.append(np.rint((hu[k].astype(float) - intercept) / slope).astype(np.uint16))
    dataset.PixelData = np.stack(planes).tobytes()
    return dataset
