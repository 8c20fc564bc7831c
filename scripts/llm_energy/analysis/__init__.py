"""From measurements to conclusions: verdicts, metrics, aggregates, comparisons."""
