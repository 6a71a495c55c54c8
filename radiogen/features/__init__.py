"""One row of numbers a lesion: deep, shape and intensity features."""
