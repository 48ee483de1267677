"""Pictures: decoding, encoding, sets of them, their labels, npz arrays, sheets."""
