"""Model folders: what a network is, what it is fed, and how it comes in and goes out."""
