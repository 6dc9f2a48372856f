"""Factors over discrete sites and a Gaussian one whose prior they select."""
