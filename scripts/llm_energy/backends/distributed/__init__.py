"""One cell served by several processes: ranks of one model, or replicas of it."""
