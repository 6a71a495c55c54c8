"""Choose by a stated rule which structure of an outline file is the tumour; it is never guessed."""

import re
from collections.abc import Sequence

from pydantic import Field

from radiogen.config import Settings
from radiogen.errors import OutlineError
from radiogen.io.dicom.seg import Segment
from radiogen.resources import OutlineRule, compile_pattern

TUMOUR_NAME = re.compile(r"gtv|tumou?r|lesion|neoplasm|nodule", re.IGNORECASE)
NODE_NAME = re.compile(r"gtv_?n|(?<![a-z])ln(?![a-z])|lymph|nodal|(?<![a-z])nodes?(?![a-z])", re.IGNORECASE)
LARGEST = "largest"


class OutlineChoice(Settings):
    """Which part of an outline is the tumour.

    Attributes:
        roi: Name, or pattern of the whole name, of an RTSTRUCT's ROI.
        segment: Name, pattern or number of a SEG's segment, `largest`, or the label of a mask file.
        agreement: Share of the LIDC readers who must have drawn a voxel.
        rule: The rule of the cohort's card, used where the two above are not given.
        known: What the cohort's card knows to be wrong with this outline.
    """

    roi: str | None = None
    segment: str | None = None
    agreement: float = Field(default=0.5, gt=0, le=1)
    rule: OutlineRule = OutlineRule()
    known: str = ""


def choose_named(
    names: Sequence[str],
    wanted: str | None,
    rule: str | None,
    subject: str,
    hint: str,
    by_keywords: bool = False,
    numbers: Sequence[int] = (),
) -> tuple[list[int], str]:
    """Choose tumours by name: as asked, by the cohort's rule, or the only one.

    Args:
        names: What the file calls its structures.
        wanted: A name, or a pattern of the whole name; several may match, each is a tumour.
        rule: The pattern of the cohort.
        subject: File and kind of structure, for messages.
        hint: The option that chooses.
        by_keywords: Also take the only one whose name says tumour and not lymph node. For RTSTRUCT, whose
            names are those of the planning team; segments of SEG are known to be called anything.
        numbers: What else the structures can be chosen by, listed with the names.

    Returns:
        Indices into `names`, and the reason in words.

    Raises:
        OutlineError: None is chosen; the names are listed.

    >>> choose_named(["Heart", "GTV-1", "LN_tumor"], None, None, "plan.dcm: ROI", "--roi", by_keywords=True)
    ([1], 'the only one whose name says tumour')
    """
    listed = _listed(names, numbers)
    for pattern, reason in ((wanted, "as asked"), (rule, "by the rule of the cohort")):
        if pattern is None:
            continue
        matching = _matching(names, pattern)
        if matching:
            return matching, reason
        # A rule that matches nothing does not fall back to the next one.
        whose = "" if pattern is wanted else ", the rule of the cohort"
        wrong = f"none matches {pattern!r}{whose}, there are {listed}"
        raise OutlineError(subject, wrong, f"{'correct' if pattern is wanted else 'choose with'} {hint}")
    if len(names) == 1:
        return [0], "the only one"
    likely = [i for i, n in enumerate(names) if TUMOUR_NAME.search(n) and not NODE_NAME.search(n)]
    if by_keywords and len(likely) == 1:
        return likely, "the only one whose name says tumour"
    raise OutlineError(subject, f"which one is the tumour is not clear from {listed}", f"choose with {hint}")


def _listed(names: Sequence[str], numbers: Sequence[int]) -> str:
    shown = [repr(name) for name in names]
    if numbers:
        shown = [f"{number} {name}" for number, name in zip(numbers, shown, strict=True)]
    return ", ".join(shown[:20]) + (", ..." if len(names) > 20 else "")


def _matching(names: Sequence[str], pattern: str) -> list[int]:
    same = [i for i, name in enumerate(names) if name.casefold() == pattern.casefold()]
    if same:  # a name may hold what a pattern means otherwise: "Neoplasm (primary)"
        return same
    # The whole name must match: GTV must not take GTVn, the lymph nodes, as well.
    expression = compile_pattern(pattern, "pattern")
    return [i for i, name in enumerate(names) if expression.fullmatch(name)]


def choose_segments(
    segments: Sequence[Segment], choice: OutlineChoice, subject: str
) -> tuple[list[int], str]:
    """Choose segments of a SEG by number or as `choose_named`, never by the meaning of a name.

    In NSCLC-Radiogenomics the segment of the tumour is called Heart or Tissue.

    Raises:
        OutlineError: None is chosen; numbers and names are listed.
    """
    wanted = choice.segment if choice.segment is not None else choice.roi
    numbers, labels = [one.number for one in segments], [one.label for one in segments]
    if wanted is not None and wanted.isdecimal():
        if int(wanted) in numbers:
            return [numbers.index(int(wanted))], "as asked"
        wrong = f"none has the number {wanted}, there are {_listed(labels, numbers)}"
        raise OutlineError(subject, wrong, "correct --segment")
    hint = "--segment NAME, NUMBER or largest"
    return choose_named(labels, wanted, choice.rule.segment, subject, hint, numbers=numbers)
