"""The command line: one command a file, shared options in `options`, the terminal in `console`."""
