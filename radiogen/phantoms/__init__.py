"""Phantoms: chests with lesions, as DICOM, outlines and a clinical table."""
