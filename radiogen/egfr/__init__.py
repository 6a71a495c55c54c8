"""EGFR status from a feature table: folds, classifiers, validation, model folder."""
