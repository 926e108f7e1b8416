"""Independent oracles: the plain, slow way of working something out."""
