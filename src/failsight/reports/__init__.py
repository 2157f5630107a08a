"""Layer `reports`: figures and one self-contained HTML page from a summary (matplotlib, jinja2)."""
