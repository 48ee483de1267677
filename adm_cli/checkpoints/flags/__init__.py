"""Flags of the original implementation, and other spellings of ours: read, never run."""
