"""Where records lie below ``results/``, under which names, and how they are read and written."""
