"""Write the first card of one's own cohort from what its folder holds, and print cards line by line.

The cards of public cohorts are shipped in `data_manifests/`; `resources.CohortCard` lists their keys.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import yaml

from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.sources import CaseSource, find_sources
from radiogen.io.clinical import read_clinical
from radiogen.io.dicom.files import walk_files
from radiogen.io.dicom.rtstruct import read_rtstruct
from radiogen.provenance import write_text
from radiogen.resources import CohortCard, cohort_card, cohort_names, licence_terms
from radiogen.runtime import Progress, no_progress

TABLES = (".csv", ".tsv", ".parquet")
MAX_NAMES = 12


@dataclass(frozen=True)
class FolderFacts:
    """What a folder of scans holds.

    Attributes:
        scans: Scans that could be read, one a patient.
        refused: Those that could not.
        several: Patients with several CT series.
        kinds: Outlines by kind.
        names: What RTSTRUCTs or SEGs call their structures, by kind, and how often.
        known: A shipped cohort all of whose pseudonyms these are, if there is one.
        tables: Clinical tables, with the number of patients whose EGFR status they know.
    """

    scans: int
    refused: int
    several: int
    kinds: dict[str, int]
    names: dict[str, dict[str, int]]
    known: str
    tables: dict[Path, int]


def examine_folder(folder: Path, progress: Progress = no_progress) -> FolderFacts:
    """Find what a folder of scans holds.

    Raises:
        RadiogenError: It holds no CT.
    """
    sources = find_sources(folder, None, IngestOptions(), (), progress).sources
    kinds: Counter[str] = Counter(one.outline.kind for one in sources if one.outline is not None)
    names: dict[str, Counter[str]] = {}
    for one in sources:
        if one.outline is not None and one.outline.kind in ("rtstruct", "seg"):
            names.setdefault(one.outline.kind, Counter()).update(_structures(one))
    return FolderFacts(
        scans=sum(one.problem is None for one in sources),
        refused=sum(one.problem is not None for one in sources),
        several=sum(bool(one.passed_over) for one in sources),
        kinds=dict(kinds.most_common()),
        names={kind: dict(found.most_common()) for kind, found in names.items()},
        known=_known(sources),
        tables=_tables(folder, {one.patient for one in sources}),
    )


def _structures(source: CaseSource) -> list[str]:
    outline = source.outline
    if outline is None:
        return []
    try:
        if outline.kind == "rtstruct":
            return [roi.name for roi in read_rtstruct(outline.path) if roi.drawn]
        header = pydicom.dcmread(outline.path, stop_before_pixels=True)
        return [str(one.get("SegmentLabel", "")) for one in header.get("SegmentSequence") or ()]
    except (RadiogenError, OSError, ValueError, AttributeError):
        return []  # ingest will report what is wrong with it


def _known(sources: tuple[CaseSource, ...]) -> str:
    """Return the shipped cohort whose pseudonyms all patients carry; empty if there is none."""
    for name in cohort_names():
        card = cohort_card(name)
        if sources and all(card.names_pseudonym(one.patient) for one in sources):
            return name
    return ""


def _tables(folder: Path, patients: set[str]) -> dict[Path, int]:
    found = {}
    for path in (path for path in walk_files(folder) if path.suffix.lower() in TABLES):
        try:
            table = read_clinical(path)
        except RadiogenError:
            continue  # a table of something else
        mine = table[table["patient_id"].isin(patients)]
        if len(mine):
            found[path] = int((mine["egfr"] != "").sum())
    return found


def start_card(folder: Path, out: Path, progress: Progress = no_progress) -> CohortCard:
    """Write a card for the scans of a folder, to be completed by hand; what is not known stays a comment.

    Args:
        folder: Scans of the cohort.
        out: New YAML file; its name becomes the cohort's.
        progress: Told of headers read.

    Returns:
        The card, as it will be read.

    Raises:
        ConfigError: The file's name is none of a card.
        OutputError: The file is there already.
        RadiogenError: The folder holds no CT.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(out, "is no name of a card", "end it in .yaml")
    if out.exists():
        raise OutputError(out, "is there already", "choose another name, or remove it")
    facts = examine_folder(folder, progress)
    write_text(out, _text(facts, folder, out))
    return cohort_card(str(out))


def _text(facts: FolderFacts, folder: Path, out: Path) -> str:
    home = out.resolve().parent
    lines = [
        "# Of your own cohort; radiogen ingest --cohort THIS.yaml holds by it.",
        f"# Found: {_found(facts)}.",
        _pair("title", out.stem),
        "licence: own  # or CC BY 4.0, ...: what others may do with it",
        "# Ids become hashes unless PatientIDs are known to be pseudonyms; then say how they look:",
        '# patient_id_pattern: "STUDY-\\\\d{3}"',
    ]
    if facts.known:
        lines.append(f"# They look like those of {facts.known}: --cohort {facts.known} knows its rules.")
    lines += ["source:", f"  {_pair('folder', Path(os.path.relpath(folder.resolve(), home)).as_posix())}"]
    lines += _outline_lines(facts)
    lines += _clinical_lines(facts, home)
    lines += [
        "# What is known to be bad:",
        "# bad_outlines:",
        "#   - {kind: rtstruct, patients: [ID], what: why}",
    ]
    return "\n".join(lines) + "\n"


def _found(facts: FolderFacts) -> str:
    outlines = ", ".join(f"{count} with {kind}" for kind, count in facts.kinds.items()) or "no outlines"
    more = [f"{facts.scans} scans", outlines]
    if facts.several:
        more.append(f"{facts.several} patients with several CT series (radiogen ingest --list shows them)")
    if facts.refused:
        more.append(f"{facts.refused} that would be refused")
    return ", ".join(more)


def _outline_lines(facts: FolderFacts) -> list[str]:
    if not facts.kinds:
        return []
    lines = ["outline:", f"  kinds: [{', '.join(facts.kinds)}]"]
    for kind, key in (("rtstruct", "roi"), ("seg", "segment")):
        names = facts.names.get(kind, {})
        if not names:
            continue
        listed = ", ".join(f"{_quoted(name)} ({count})" for name, count in list(names.items())[:MAX_NAMES])
        lines.append(f"  # structures: {listed}{', ...' if len(names) > MAX_NAMES else ''}")
        lines.append(f'  # {key}: "GTV.*"  # pattern of the whole name that is the tumour')
    return lines


def _clinical_lines(facts: FolderFacts, home: Path) -> list[str]:
    if not facts.tables:
        return [
            "# clinical:",
            "#   table: clinical.csv  # beside this file",
            "#   columns: {patient_id: MRN, egfr: EGFR result}  # where they are called otherwise",
            "#   values: {egfr: {L858R: mutant}}",
        ]
    best = max(facts.tables, key=lambda path: facts.tables[path])
    where = Path(os.path.relpath(best.resolve(), home)).as_posix()
    return ["clinical:", f"  {_pair('table', where)}  # EGFR status of {facts.tables[best]} patients"]


def _pair(key: str, value: str) -> str:
    return yaml.safe_dump({key: value}, width=1000, allow_unicode=True).strip()


def _quoted(name: str) -> str:
    return repr(name.replace("\n", " ").replace("\r", " ")[:64])


def card_lines(card: CohortCard) -> Iterator[str]:
    """Yield the card of a cohort, line by line: what it is, its licence, where to get it, what to know."""
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
    yield from _source_lines(card)
    yield from _outline_rules(card)
    yield from _clinical_source(card)
    for split in card.splits:
        parts = "; ".join(f"{name}: {pattern}" for name, pattern in split.parts.items())
        yield f"  published split {split.name}: {split.what}" + (f" ({parts})" if parts else "")
    for bad in card.bad_outlines:
        yield f"  known to be bad: {bad.kind} of {', '.join(bad.patients)}: {bad.what}"
    for shared in card.shared_patients:
        number = f"{len(shared.pairs)} patients" if shared.pairs else "patients"
        yield f"  shares {number} with {shared.cohort}: {shared.what}"
    for note in card.notes:
        yield f"  note: {note}"


def _source_lines(card: CohortCard) -> Iterator[str]:
    if card.source.idc:
        yield f"  get it: radiogen cohort download {card.name} -o DIR"
    if card.source.page:
        yield f"  page: {card.source.page}"
    if card.source.how:
        yield f"  {'besides' if card.source.idc else 'get it'}: {card.source.how}"
    if card.source_folder:
        yield f"  scans: {card.source_folder}"


def _outline_rules(card: CohortCard) -> Iterator[str]:
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


def _clinical_source(card: CohortCard) -> Iterator[str]:
    if card.clinical.egfr:
        yield f"  EGFR status: {card.clinical.egfr}"
    where = card.clinical_table or card.clinical.where
    if where:
        yield f"  clinical table: {where}"
