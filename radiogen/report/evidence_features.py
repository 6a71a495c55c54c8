"""What a run says about patients, features and what is learned from them, each with file and key."""

from collections.abc import Iterator

from radiogen.report.evidence import Evidence, Files, at, counted, named
from radiogen.report.figures import figure

CHARACTERISTICS = ("sex", "smoking", "histology", "ethnicity", "site")
KEYS = ("case_id", "patient_id", "lesion")


def features(files: Files) -> Iterator[Evidence]:
    about = files.run.features_about
    if about.get("extractor"):
        yield Evidence(f"Extractor: {named(about['extractor'])}.", "features.json: extractor")
    for path, record in files.records("extract-features")[:1]:
        yield Evidence(f"Settings: {named(record.get('options'))}.", f"{path}: options")


def feature_classes(files: Files) -> Iterator[Evidence]:
    columns = [
        name for name in (files.run.features or ({},))[0] if name not in ("case_id", "patient_id", "lesion")
    ]
    if columns:
        text = counted(name.partition("_")[0] for name in columns)
        yield Evidence(f"Columns by block: {text}.", "features.csv: header, features.json: columns")


def feature_count(files: Files) -> Iterator[Evidence]:
    yield from feature_classes(files)
    yield from predictors(files)


def discretisation(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("extract-features")[:1]:
        if at(record, "options.radiomics"):
            where = f"{path}: options.radiomics"
            yield Evidence(f"PyRadiomics: {at(record, 'options.radiomics')}.", where)
        else:
            yield Evidence(
                "Deep, shape and intensity features only: no grey levels are grouped.", f"{path}: options"
            )


def stability(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("extract-features")[:1]:
        repeats = at(record, "options.perturb")
        if repeats:
            text = f"Features measured again with {repeats} jittered and eroded masks: ICC of each."
            yield Evidence(text, f"{path}: options.perturb; features.stability.csv: icc")


def scaling(files: Files) -> Iterator[Evidence]:
    yield from _setting(files, "Imputed and scaled inside the folds", ("harmonise",))


def reduction(files: Files) -> Iterator[Evidence]:
    if files.run.egfr_config:
        text = f"Reduction, learned inside the folds: {files.run.egfr_config.get('reduction')}."
        yield Evidence(text, "egfr/config.json: reduction")


def predictors(files: Files) -> Iterator[Evidence]:
    config = files.run.egfr_config
    if config:
        clinical = ", ".join(config.get("clinical_columns") or ()) or "none"
        text = f"Clinical: {clinical}; features: {len(config.get('feature_columns') or ())} columns."
        yield Evidence(text, "egfr/config.json: clinical_columns, feature_columns")


def demographics(files: Files) -> Iterator[Evidence]:
    rows = files.run.manifest
    for name in CHARACTERISTICS:
        if any(row.get(name) for row in rows):
            splits = sorted({row.get("split", "") for row in rows})
            by_split = (
                f"{split or 'no split'}: "
                + counted(row.get(name) for row in rows if row.get("split", "") == split)
                for split in splits
            )
            yield Evidence(f"{name}: {'; '.join(by_split)}.", f"cases/manifest.csv: {name}, split")
    ages = sorted(age for row in rows if (age := figure(row.get("age"))) is not None)
    if ages:
        text = f"age: median {ages[len(ages) // 2]:.0f}, {ages[0]:.0f} to {ages[-1]:.0f}, {len(ages)} known."
        yield Evidence(text, "cases/manifest.csv: age")


def missing(files: Files) -> Iterator[Evidence]:
    left = files.run.validation.get("left_out")
    if isinstance(left, dict):
        yield Evidence(f"Left out: {named(left) or 'nobody'}.", "egfr/validation.json: left_out")
    yield from missing_input(files)


def missing_input(files: Files) -> Iterator[Evidence]:
    if any("missing" in row for row in files.run.predictions):
        count = sum((figure(row.get("missing")) or 0) > 0 for row in files.run.predictions)
        text = f"{count} of {len(files.run.predictions)} patients had missing inputs, which the model filled"
        yield Evidence(
            f"{text}; each has a word on how familiar it is.", "predictions.csv: missing, in_distribution"
        )


def _setting(files: Files, words: str, names: tuple[str, ...]) -> Iterator[Evidence]:
    settings = files.run.egfr_config.get("settings")
    if isinstance(settings, dict):
        told = "; ".join(f"{name} {settings.get(name)}" for name in names)
        yield Evidence(f"{words}; {told}.", "egfr/config.json: settings")


def classifier(files: Files) -> Iterator[Evidence]:
    config = files.run.egfr_config
    if config:
        text = f"{config.get('classifier')} on {config.get('inputs')}, reduction {config.get('reduction')}."
        yield Evidence(text, "egfr/config.json: classifier, inputs, reduction")


def tuning(files: Files) -> Iterator[Evidence]:
    if files.run.validation:
        text = f"Searched in {files.run.validation.get('inner_folds')} inner folds of each outer one."
        yield Evidence(text, "egfr/validation.json: inner_folds; egfr/config.json: settings")
