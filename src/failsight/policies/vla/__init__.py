"""Vision-language-action policies; today the `tiny` cell: a small network trained from scratch."""
