"""Networks made of a backbone: reduced, split into branches, folded, costed."""
