"""Write one table as text, Markdown or LaTeX."""
