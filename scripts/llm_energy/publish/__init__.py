"""What a reader gets: tables, figures, the report, and the way back to the measurements."""
