"""Files in, files out: CT series, outlines, case folders, tables, pictures."""
