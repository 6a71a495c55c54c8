"""What a cohort's card says, in lines for a person."""

from collections.abc import Iterator

from radiogen.resources import CohortCard, licence_terms


def card_lines(card: CohortCard) -> Iterator[str]:
    """The card of a cohort, line by line: what it is, what it forbids, how it is had, what to know."""
    yield f"{card.name}: {card.title}"
    counts = card.counts
    if counts.patients:
        automatic = f", {counts.automatic} automatic kept apart" if counts.automatic else ""
        size = f", {counts.gigabytes:g} GB" if counts.gigabytes else ""
        yield f"  {counts.patients} patients, {counts.with_outline} of them with an outline{size}"
        yield f"  series: {counts.ct} CT, {counts.outlines} outlines{automatic}"
    yield f"  licence: {card.licence} ({licence_terms(card.licence)})"
    if card.citation:
        yield f"  cite: {card.citation}" + (f", doi:{card.doi}" if card.doi else "")
    yield from _how(card)
    yield from _outlines(card)
    yield from _clinical(card)
    for split in card.splits:
        parts = "; ".join(f"{name}: {pattern}" for name, pattern in split.parts.items())
        yield f"  published split {split.name}: {split.what}" + (f" ({parts})" if parts else "")
    for bad in card.bad_outlines:
        yield f"  known to be bad: {bad.kind} of {', '.join(bad.patients)}: {bad.what}"
    for note in card.notes:
        yield f"  note: {note}"


def _how(card: CohortCard) -> Iterator[str]:
    if card.source.idc:
        yield f"  get it: radiogen cohort download {card.name} -o DIR"
    if card.source.page:
        yield f"  page: {card.source.page}"
    if card.source.how:
        yield f"  {'besides' if card.source.idc else 'get it'}: {card.source.how}"
    if card.source_folder:
        yield f"  scans: {card.source_folder}"


def _outlines(card: CohortCard) -> Iterator[str]:
    rule = card.outline
    names = [
        f"{what} {pattern}" for what, pattern in (("ROI", rule.roi), ("segment", rule.segment)) if pattern
    ]
    if rule.kinds:
        yield f"  outlines: {', then '.join(rule.kinds)}" + (
            f"; the tumour is {', '.join(names)}" if names else ""
        )
    for one in card.series:
        if not one.fetch:
            yield f"  not downloaded: {one.modality} {one.analysis}".rstrip() + f", {one.what}"


def _clinical(card: CohortCard) -> Iterator[str]:
    if card.clinical.egfr:
        yield f"  EGFR status: {card.clinical.egfr}"
    where = card.clinical_table or card.clinical.where
    if where:
        yield f"  clinical table: {where}"
