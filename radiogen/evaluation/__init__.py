"""Lesion masks against reference masks: figures, floors, intervals, a page."""
