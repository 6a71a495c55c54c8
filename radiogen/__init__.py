"""Lung-cancer radiogenomics from CT: from a scan to an EGFR probability. Not for clinical use."""

__version__ = "0.1.0"
