"""Everything that touches files: weights, pictures, and writing without ever tearing a file."""
