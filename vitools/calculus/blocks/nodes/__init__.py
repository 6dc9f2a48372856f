"""Factors over scalars that count as tables on the nodes of a quadrature."""
