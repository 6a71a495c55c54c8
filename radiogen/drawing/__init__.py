"""Planes of a CT, panels, pictures and plots: the only room that knows matplotlib."""
