"""Digits, random numbers and distortions."""
