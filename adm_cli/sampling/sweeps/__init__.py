"""The same seeds over a grid of settings."""
