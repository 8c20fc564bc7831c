"""Which measurements belong together: in one row, in one session, in one comparison."""
