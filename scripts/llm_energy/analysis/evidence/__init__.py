"""What is judged: measurements, failures, the files of a repeat, and the windows in them."""
