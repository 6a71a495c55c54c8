"""Whole cohorts: public sets and one's own, downloaded, split, taken through all steps, and exported.

To add a public cohort, write its card `data_manifests/NAME.yaml`: where it comes from, its licence, how its
patients and tumours are named. The keys are the fields of `resources.CohortCard`; nothing else is needed.
"""
