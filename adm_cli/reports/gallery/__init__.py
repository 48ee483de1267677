"""One self-contained HTML page that shows pictures by class, scale, sampler, seed or run."""
