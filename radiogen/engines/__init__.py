"""What runs a network: patches, loss, training, inference, model folders."""
