"""The next case is read while this one is out: in order, errors where they belong."""

import threading

import pytest

from radiogen.read_ahead import read_ahead


def test_everything_comes_in_order_with_what_was_read():
    found = [(thing, load()) for thing, load in read_ahead([1, 2, 3], lambda n: 10 * n, lambda n: n != 2)]
    assert found == [(1, 10), (2, 20), (3, 30)]


def test_the_next_is_read_while_this_one_is_out():
    began = {number: threading.Event() for number in (1, 2, 3)}

    def read(number):
        began[number].set()
        return number

    ahead = read_ahead([1, 2, 3], read, lambda _: True)
    next(ahead)
    assert began[2].wait(5) and not began[3].is_set()
    ahead.close()


def test_what_is_large_is_read_when_it_is_asked_for():
    read = []
    ahead = read_ahead([1, 2], lambda n: read.append(n), lambda _: False)
    _, load = next(ahead)
    assert read == []
    load()
    assert read == [1]


def test_an_error_comes_with_its_own_thing():
    def read(number):
        if number == 2:
            raise ValueError("damaged")
        return number

    came = []
    for number, load in read_ahead([1, 2, 3], read, lambda _: True):
        if number == 2:
            with pytest.raises(ValueError, match="damaged"):
                load()
        else:
            came.append(load())
    assert came == [1, 3]
