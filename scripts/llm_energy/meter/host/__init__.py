"""What the host does: activity, processes, and a snapshot of both."""
