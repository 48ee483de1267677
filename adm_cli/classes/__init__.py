"""The classes of ImageNet: ids, names, WordNet ids, groups."""
