"""From scans of any source to checked case folders."""
