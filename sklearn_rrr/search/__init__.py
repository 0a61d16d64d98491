"""Search for the number of blocks."""
