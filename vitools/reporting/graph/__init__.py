"""A model as a directed graph with plates: read, laid out, drawn."""
