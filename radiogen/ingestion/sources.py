"""Find what a source holds: one CT a patient, and the outline that belongs to it.

Of DICOM the headers tell what belongs together, of volume files their names.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from radiogen.errors import CaseError, ConfigError, OutlineError, RadiogenError, SeriesError, VolumeError
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.series_choice import Patient, belongs_to_any, choose_series, gather_patients
from radiogen.io.cases import is_case_source
from radiogen.io.dicom.file_kind import read_facts, read_outline_file
from radiogen.io.dicom.files import DicomTree, HeaderIndex, find_dicom, walk_files
from radiogen.io.dicom.series import Series
from radiogen.io.dicom.slice_header import OutlineFile
from radiogen.io.nifti import VOLUME_ENDINGS, is_volume_file
from radiogen.provenance import file_sha256, short_hash
from radiogen.resources import OutlineKind, compile_pattern
from radiogen.runtime import Progress, no_progress

# 0000 is the channel that nnU-Net appends to its images.
IMAGE_WORDS = ("image", "images", "img", "imgs", "ct", "cts", "scan", "scans", "volume", "volumes", "0000")
MASK_WORDS = (
    "label", "labels", "mask", "masks", "seg", "segs", "segmentation", "segmentations", "annotations",
    "lesion", "lesions", "gtv", "tumor", "tumour", "tumors", "tumours", "roi",
)  # fmt: skip
LUNG_WORDS = ("lungs", "lungmask")
PATTERN_EXAMPLE = r"'(.+)_R_\d+'"
INDEX = ".headers.json.gz"  # beside the cases, for trees of many files


@dataclass(frozen=True)
class VolumePair:
    """One scan: what it is called without words like "image", the CT, and the masks that go with it."""

    name: str
    ct: Path
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _NamedVolume:
    path: Path
    home: Path  # the folder, above folders like imagesTr
    core: str  # the stem without image and mask words
    role: str  # image, mask, lungs


@dataclass(frozen=True)
class CaseSource:
    """The files of one case, or the reason why it cannot be written."""

    patient: str  # PatientID or the name of the volume file; never shown unless known to be a pseudonym
    uid: str  # of the CT volume, or the hash of the volume file
    where: Path
    ct: Series | Path | None = None
    outline: OutlineFile | None = None
    decisions: tuple[str, ...] = ()
    problem: RadiogenError | None = None
    # Other series of the patient, and why they are not taken.
    passed_over: tuple[tuple[Series, str], ...] = ()
    scan: str = ""  # the name of a volume file, of which a patient may have several

    @property
    def id(self) -> str:
        return hashed_scan_id(self.patient, self.uid)


def hashed_scan_id(patient: str, uid: str) -> str:
    """Return a hash that stands for the patient and the volume of one scan without showing them."""
    return short_hash(f"{patient}\n{uid}")


@dataclass(frozen=True)
class FoundSources:
    """The sources of all cases, and how many files of which kind were left out."""

    sources: tuple[CaseSource, ...]
    ignored: dict[str, int]


def find_sources(
    source: Path,
    cases: Path | None,
    options: IngestOptions,
    kinds: Sequence[OutlineKind] = (),
    progress: Progress = no_progress,
) -> FoundSources:
    """Search a file or folder for CT scans and outlines.

    Args:
        source: DICOM folder, volume file, or folder of volume files.
        cases: Where cases will be written; not searched. The index of a large tree is kept there.
        options: Which outline and series to take.
        kinds: Kinds of outlines in the order of preference.
        progress: Called with the headers read.

    Raises:
        RadiogenError: There is no CT.
    """
    if not source.exists():
        raise SeriesError(source, "does not exist", "give a DICOM folder or volume files")
    if source.is_file():
        return _one_file(source, options)
    if is_case_source(source):
        raise CaseError(source, "already holds cases", "give it to the next command as it is")
    home = cases.resolve() if cases is not None else None
    index = HeaderIndex(cases / INDEX) if cases is not None else None
    tree = find_dicom(source, home, index, partial(progress, "headers"))
    volumes = [path for path in tree.files if is_volume_file(path)]
    if tree.slices:
        patients = gather_patients(tree)
        # Counted and shown: an outline without its CT is often a forgotten folder.
        unmatched = sum(not belongs_to_any(outline, patients) for outline in tree.outlines)
        left_out = {"outline of a CT that is not here": unmatched, "volume file beside DICOM": len(volumes)}
        ignored = {**tree.ignored, **{kind: count for kind, count in left_out.items() if count}}
        return FoundSources(tuple(_dicom_sources(source, tree, patients, options, kinds)), ignored)
    if volumes:
        return _volume_folder(source, volumes, options)
    raise _no_ct(source, tree)


def _no_ct(source: Path, tree: DicomTree) -> RadiogenError:
    for path, reason in tree.damaged.items():
        return SeriesError(path, reason, "copy the file again")
    others = ", ".join(f"{count} x {kind}" for kind, count in sorted(tree.ignored.items()))
    others = ", ".join(filter(None, [others, f"{len(tree.outlines)} x outline" if tree.outlines else ""]))
    found = f"only {others}" if others else "it is empty"
    return SeriesError(source, f"holds no CT, {found}", "give a folder with CT slices or volume files")


def _one_file(source: Path, options: IngestOptions) -> FoundSources:
    if not is_volume_file(source):
        facts = read_facts(source)
        if facts.slices and len(facts.slices) > 1:
            tree = DicomTree()
            tree.add(source, facts)
            return FoundSources(tuple(_dicom_sources(source, tree, gather_patients(tree), options, ())), {})
        is_archive = source.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
        hint = "unpack it first" if is_archive else "give the folder of the DICOM series, or a volume file"
        raise SeriesError(source, "is neither a folder nor a volume file", hint)
    pair = VolumePair(scan_name(source), source)
    return FoundSources((_volume_source(pair, _volume_outlines(options, 1), options.patient_pattern),), {})


def _volume_folder(source: Path, files: list[Path], options: IngestOptions) -> FoundSources:
    pairs, left_out = pair_volumes(files)
    if not pairs:
        raise VolumeError(source, "holds masks but no CT volume", "give the folder with the scans")
    outlines = _volume_outlines(options, len(pairs))
    sources = tuple(_volume_source(pair, outlines, options.patient_pattern) for pair in pairs)
    return FoundSources(sources, left_out)


def _volume_outlines(options: IngestOptions, scans: int) -> dict[str, OutlineFile] | None:
    """Return the outlines of the options by the name of their scan; "" goes with the only scan."""
    path = options.outline
    if path is None:
        return None
    if path.is_dir():
        return _masks_by_scan(path)
    if scans > 1:
        raise OutlineError(path, f"is one outline for {scans} scans", "give a folder of outlines")
    return {"": outline_of(path)}


def _masks_by_scan(folder: Path) -> dict[str, OutlineFile]:
    files = (file for file in walk_files(folder) if is_volume_file(file))
    return {scan_name(file): OutlineFile(file, "mask") for file in files}


def outline_of(path: Path) -> OutlineFile:
    """Return the kind of outline that a file holds, and which CT it names.

    Raises:
        OutlineError: It does not exist or is no outline.
    """
    if not path.is_file():
        raise OutlineError(path, "is not a file", "give an RTSTRUCT, DICOM SEG, LIDC XML or mask file")
    if is_volume_file(path):
        return OutlineFile(path, "mask")
    return read_outline_file(path)


def _volume_source(
    pair: VolumePair, outlines: dict[str, OutlineFile] | None, patient_pattern: str | None
) -> CaseSource:
    patient = _patient_of(pair, patient_pattern) if patient_pattern is not None else pair.name
    # A volume file has no UID; its content stands for it, so that a renamed copy keeps its case id.
    source = CaseSource(patient, file_sha256(pair.ct), pair.ct, pair.ct, scan=pair.name)
    if outlines is not None:
        outline = outlines.get("") or outlines.get(pair.name)
        decisions = () if outline else ("no outline of this name was given",)
        return replace(source, outline=outline, decisions=decisions)
    if len(pair.masks) > 1:
        names = ", ".join(path.name for path in pair.masks)
        problem = OutlineError(pair.ct, f"has several masks: {names}", "choose one with --outline")
        return replace(source, ct=None, problem=problem)
    if not pair.masks:
        return replace(source, decisions=("no outline was found",))
    return replace(source, outline=OutlineFile(pair.masks[0], "mask"))


def _patient_of(pair: VolumePair, pattern: str) -> str:
    option, expression = f"--patient-pattern {pattern}", compile_pattern(pattern, "--patient-pattern")
    if expression.groups == 0:
        raise ConfigError(
            option, "has no group for the patient", f"put it in parentheses, as in {PATTERN_EXAMPLE}"
        )
    # The whole name, as with --roi: a pattern that fits by chance somewhere would join patients.
    found = expression.fullmatch(pair.name)
    if found is None or not found[1]:
        hint = f"let it match the whole name, as {PATTERN_EXAMPLE} does P7_R_2"
        raise ConfigError(option, f"does not find the patient in {pair.name!r} ({pair.ct})", hint)
    return str(found[1])


def _dicom_sources(
    source: Path,
    tree: DicomTree,
    patients: list[Patient],
    options: IngestOptions,
    kinds: Sequence[OutlineKind],
) -> Iterable[CaseSource]:
    if options.patient_pattern is not None:
        wrong = "is for volume files, and DICOM names its patients itself"
        raise ConfigError("--patient-pattern", wrong, "leave it out")
    if options.series is not None:
        patients = _with_series(source, patients, options.series)
    masks: dict[str, OutlineFile] = {}
    if options.outline is not None:
        tree.outlines, masks = _given_outlines(options.outline, len(patients))
    used = set()
    for patient in patients:
        mask = masks.get("") or masks.get(patient.name)
        try:
            if patient.problem is not None:
                raise patient.problem
            choice = choose_series(patient, [mask] if mask else tree.outlines, kinds, options.series_filter)
        except RadiogenError as problem:
            passed_over = tuple((one, "see the reason") for one in patient.series)
            yield CaseSource(
                patient.name, patient.uid, patient.folder, problem=problem, passed_over=passed_over
            )
            continue
        used.add(choice.outline)
        series = choice.series
        yield CaseSource(
            patient.name,
            series.name,
            series.folder,
            series,
            choice.outline,
            choice.decisions,
            passed_over=choice.passed_over,
        )
    if options.outline is not None and used == {None}:
        raise OutlineError(
            options.outline, "refers to another CT than those of the source", "give the outline of this CT"
        )


def _with_series(source: Path, patients: list[Patient], name: str) -> list[Patient]:
    """Return the patients who have a series of that UID."""
    having = [one for one in patients if any(name in (series.uid, series.name) for series in one.series)]
    if not having:
        count = sum(len(one.series) for one in patients)
        raise SeriesError(
            source, f"holds {count} CT series, none is {name}", "correct --series, --list shows them"
        )
    return having


def _given_outlines(path: Path, patients: int) -> tuple[list[OutlineFile], dict[str, OutlineFile]]:
    """Return the outlines of the options: those that name their CT, and mask files by patient."""
    if path.is_dir():
        return find_dicom(path).outlines, _masks_by_scan(path)
    outline = outline_of(path)
    if outline.kind != "mask":
        return [outline], {}
    if patients > 1:
        raise OutlineError(path, f"is one mask for {patients} patients", "give a folder of masks")
    return [], {"": outline}


def pair_volumes(files: Iterable[Path]) -> tuple[list[VolumePair], dict[str, int]]:
    """Pair CT volumes with lesion masks by name.

    A mask is `x_label` beside `x` or `x_image`, `labelsTr/x` beside `imagesTr/x`, `mask/x` beside `ct/x`, or,
    where a folder has one CT, a file or folder that is called nothing but `mask`, `label` or the like.

    Returns:
        One pair a CT in the order of the files, and how many files of which kind belong to none.
    """
    named = [_named(path) for path in files]
    images = [one for one in named if one.role == "image"]
    # Beside ct/x the file of another folder, readers/x, is something else about x and no second CT.
    in_folders = {(one.home, one.core) for one in images if one.core and one.home != one.path.parent}
    others = {one for one in images if (one.home.parent, one.core) in in_folders}
    images = [one for one in images if one not in others]
    alone = {home for home, count in Counter(one.home for one in images).items() if count == 1}
    masks: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for one in named:
        if one.role == "mask":
            masks[one.home, one.core].append(one.path)
    pairs = []
    for one in images:
        found = masks.pop((one.home, one.core), [])
        if not found and one.home in alone:
            found = masks.pop((one.home, ""), [])
        pairs.append(VolumePair(one.core or one.home.name, one.path, tuple(found)))
    lonely = sum(len(left) for left in masks.values())
    counts = {"mask without a CT": lonely, "volume file of the name of a CT in another folder": len(others)}
    return pairs, {kind: count for kind, count in counts.items() if count}


def scan_name(path: Path) -> str:
    """Return what a volume file is called without words like "image" or "label", or else its folder.

    >>> scan_name(Path("a/lung1_image.nrrd"))
    'lung1'
    """
    named = _named(path)
    return named.core or named.home.name


def _named(path: Path) -> _NamedVolume:
    role, home = "image", path.parent
    # imagesTr, labelsTr, imagesTs: the folders of the Medical Segmentation Decathlon and nnU-Net.
    folder = re.sub(r"(tr|ts|val)$", "", home.name.lower())
    if folder in MASK_WORDS or folder in IMAGE_WORDS:
        role, home = ("mask" if folder in MASK_WORDS else "image"), home.parent
    core = _stem(path)
    # A lung mask beside the scan is neither CT nor lesion; radiogen finds its own.
    if _last_word(core)[1] in LUNG_WORDS:
        return _NamedVolume(path, home, "", "lungs")
    before, word = _last_word(core)
    while word in MASK_WORDS + IMAGE_WORDS:
        if word in MASK_WORDS:
            role = "mask"
        core = before
        before, word = _last_word(core)
    return _NamedVolume(path, home, core, role)


def _last_word(name: str) -> tuple[str, str]:
    """Return what stands before the last word, and that word in lower case."""
    found = re.fullmatch(r"(.*?)[_\-. ]*([^_\-. ]*)", name)
    return (found[1], found[2].lower()) if found else (name, "")


def _stem(path: Path) -> str:
    for ending in VOLUME_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem
