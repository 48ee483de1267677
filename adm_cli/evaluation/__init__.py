"""Images to features to statistics to numbers; each rung is callable alone."""
