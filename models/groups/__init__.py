"""Rows in groups: mixed models, and answers of persons to items."""
