"""What every stage must agree on: the engines, the metrics, and the order of cells."""
