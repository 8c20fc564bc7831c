"""Record what the management controller of a node says that the node draws, beside a sweep."""
