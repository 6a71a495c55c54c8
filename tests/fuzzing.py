"""What tests of damaged input share: how many examples they take, and how files are damaged."""

from hypothesis import settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement

NASTY = (
    *(b"", b"\\\\", b"nan", b"inf", b"-inf", b"1e308", b"-1", b"0", b"1", b"2", b"65535", b"99999999"),
    *(
        b"abc",
        b"1\\2",
        b"1\\2\\3",
        b"nan\\0\\0",
        b"0\\0\\0\\0\\0\\0",
        b"1\\0\\0\\1\\0\\0",
        b"\0\0",
        b"\xff\xff",
    ),
    *(b"\x01\0", b"\0\x80", b"\xff" * 8, b"\0" * 8, b"LABELMAP", b"FRACTIONAL", b"CLOSED_PLANAR", b"1.2.3"),
)
NORMAL = 100  # examples of the everyday profile


def fuzz(few=25):
    """A few examples every day; as many as the profile asks for at night."""
    examples = settings.default.max_examples
    return settings(max_examples=few if examples <= NORMAL else examples)


def damages(most=4):
    """Ways to damage bytes: where (share of the length), how, and with what."""
    one = st.tuples(st.floats(0, 1), st.sampled_from(["put", "add", "cut", "end"]), st.binary(max_size=24))
    return st.lists(one, min_size=1, max_size=most)


def damaged(content, ways):
    for share, how, piece in ways:
        at = int(share * len(content))
        if how == "put":
            content = content[:at] + piece + content[at + len(piece) :]
        elif how == "add":
            content = content[:at] + piece + content[at:]
        elif how == "cut":
            content = content[:at] + content[at + len(piece) + 1 :]
        else:
            content = content[:at]
    return content


def tag_damages(most=3):
    """Ways to damage elements of a data set: which (share of all), and what it holds instead."""
    value = st.none() | st.sampled_from(NASTY) | st.binary(max_size=40) | st.sampled_from(["double", "empty"])
    return st.lists(st.tuples(st.floats(0, 1), value), min_size=1, max_size=most)


def damage_tags(dataset, ways):
    """Delete elements, or put bytes into them that their kind of value does not allow."""
    places = list(_elements(dataset))
    for share, value in ways:
        holder, tag, kind = places[min(int(share * len(places)), len(places) - 1)]
        if tag not in holder:
            continue
        if value is None:
            del holder[tag]
        elif isinstance(value, bytes):
            stored = value + b" " * (len(value) % 2)
            holder[tag] = RawDataElement(tag, kind, len(stored), stored, 0, False, True)
        elif kind == "SQ" and not isinstance(holder.get_item(tag), RawDataElement):
            items = holder[tag].value
            holder[tag].value = [*items, *items] if value == "double" else []


def _elements(dataset):
    for element in list(dataset):
        yield dataset, element.tag, element.VR
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)
