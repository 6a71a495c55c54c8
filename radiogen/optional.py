"""Import optional packages, with an error that says how to install them."""

import importlib
from types import ModuleType

from radiogen.errors import MissingPackageError


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingPackageError: It is not installed; the message carries the command that brings it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"package {package}", "is not installed", f"pip install 'radiogen[{extra}]'"
        ) from error
