"""Reading and writing DICOM: headers, slices, pixels, series, outlines, and the objects we write."""
