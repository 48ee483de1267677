"""Which images are drawn, of which classes, seeds and pictures."""
