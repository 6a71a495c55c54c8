"""How well a lesion mask agrees with a reference, and what a lesion measures."""
