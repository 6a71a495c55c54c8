"""From scans to case folders, and from case folders to what a network sees."""
