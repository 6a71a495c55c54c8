"""Planes of a CT, panels, pictures and plots: the one place that knows matplotlib."""
