"""Train RA-Seg, dense or pruned, and choose what is pruned."""
