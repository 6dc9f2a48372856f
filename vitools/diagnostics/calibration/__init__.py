"""Calibration by simulated data: do the true values rank evenly?"""
