"""What makes the documentation site, beside mkdocs: `make docs`."""
