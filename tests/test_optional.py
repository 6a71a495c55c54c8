import json

import pytest

from radiogen.errors import MissingPackageError
from radiogen.optional import require


def test_a_package_that_is_there_comes_in():
    assert require("json", extra="none") is json


def test_a_missing_package_is_answered_with_the_command_that_brings_it():
    with pytest.raises(MissingPackageError, match=r"no_such_package.*pip install 'radiogen\[lungs\]'"):
        require("no_such_package", extra="lungs")
