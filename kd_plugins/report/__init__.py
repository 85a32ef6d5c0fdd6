"""One self-contained HTML page from a run: student against teacher, curves, and the images where they differ most."""
