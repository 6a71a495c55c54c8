"""Whole cohorts: splits, and the demonstration on phantoms."""
