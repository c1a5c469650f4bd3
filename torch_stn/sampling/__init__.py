"""image, points -> image (paper 3.3)."""
