"""What `adm doctor` finds: the machine, the weights, and whether the arithmetic is right."""
