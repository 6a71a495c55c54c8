"""Everything that speaks DICOM: headers, slices, pixels, series, outlines, and the objects that are written."""
