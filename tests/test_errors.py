import pickle

import pytest

from radiogen import errors
from radiogen.errors import RadiogenError, SeriesError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_caught_as_one_family(kind):
    assert issubclass(kind, RadiogenError)


def test_an_error_is_one_line_even_where_its_parts_are_not():
    error = SeriesError("scan 1", "has gaps\nat slice 3", "give\tthe whole\nseries")
    assert str(error) == "scan 1: has gaps at slice 3 (give the whole series)"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_back_from_a_worker_process(kind):
    error = pickle.loads(pickle.dumps(kind("scan 1", "is empty", "copy it again")))
    assert type(error) is kind
    assert (error.thing, error.wrong, error.hint) == ("scan 1", "is empty", "copy it again")


def test_a_reason_for_tables_names_no_folder_that_may_carry_a_name():
    error = RadiogenError("/scans/Doe^Jane/series 3", "misses a slice", "give the whole series")
    assert error.reason == "series 3: misses a slice"
    assert RadiogenError("--box 1,2", "is flat", "give two corners").reason == "--box 1,2: is flat"
