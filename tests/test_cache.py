"""A cached result is found again by what decides it; what is damaged or of another key is not there."""

import numpy as np
import pytest

from radiogen.cache import cached_arrays, key_of, read_cached, write_cached


def test_a_key_depends_on_values_shapes_and_the_content_of_files(tmp_path):
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(b"one")
    key = key_of(np.zeros((2, 3)), path, {"seed": 1})
    assert key == key_of(np.zeros((2, 3)), path, {"seed": 1})
    assert key != key_of(np.zeros((3, 2)), path, {"seed": 1})
    assert key != key_of(np.zeros((2, 3)), path, {"seed": 2})
    path.write_bytes(b"two")
    assert key != key_of(np.zeros((2, 3)), path, {"seed": 1})


def test_arrays_are_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3), np.array(0.5)

    first, again = (cached_arrays(tmp_path, "key", compute) for _ in range(2))
    assert len(calls) == 1 and all((a == b).all() for a, b in zip(first, again, strict=True))
    cached_arrays(None, "key", compute)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_damaged_arrays_are_computed_anew(tmp_path, content):
    (tmp_path / "key.npz").write_bytes(content)
    assert cached_arrays(tmp_path, "key", lambda: (np.ones(2),))[0].sum() == 2
    assert cached_arrays(tmp_path, "key", lambda: (np.zeros(2),))[0].sum() == 2


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"key": "k"}', '{"key": "other", "value": 1}'])
def test_json_of_another_key_or_damaged_is_not_there(tmp_path, content):
    path = tmp_path / "value.json"
    assert read_cached(path, "k") is None
    path.write_text(content)
    assert read_cached(path, "k") is None
    write_cached(path, "k", {"rows": [1.5]})
    assert read_cached(path, "k") == {"rows": [1.5]}
