"""From options to pictures: a run, its folder, and what draws it."""
