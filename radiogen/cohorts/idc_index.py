"""Find the index of the Imaging Data Commons that idc-index brings; no other file knows that package."""

from pathlib import Path

from radiogen.optional import require


def packaged_index() -> Path:
    """The Parquet file of the installed package, one row a series of the whole archive.

    Raises:
        MissingPackageError: idc-index is not installed.
    """
    return Path(require("idc_index_data", extra="download").IDC_INDEX_PARQUET_FILEPATH)
