"""The papers' pruning protocols, and pruned RA-Segs against dense ones."""
