"""Measures of lesion masks: overlap, detection, floors, intervals, size."""
