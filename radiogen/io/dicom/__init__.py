"""All that speaks DICOM: headers, slices, pixels, series, outlines, and the objects we write."""
