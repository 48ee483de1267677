"""Files on disk: atomic writes, locks, links, tables, manifests, and what reading may cost."""
