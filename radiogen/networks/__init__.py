"""RA-Seg and its parts."""
