"""Fits of one problem side by side: the record, and its forms as text, table and JSON."""
