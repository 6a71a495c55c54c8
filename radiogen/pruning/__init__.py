"""Which weights to keep before training: criteria, weight masks, collapse."""
