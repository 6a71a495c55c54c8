"""Benchmarks of pruning: classifiers by the papers' protocol, and RA-Seg on a case folder."""
