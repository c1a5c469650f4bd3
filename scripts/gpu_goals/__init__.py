"""The goals on a GPU as rows of data, and what measures them; `python scripts/gpu.py` drives it.

lines.py says what a goal, a line and a verdict are; device.py is where things run, and its clock; each other file knows
how to measure some goals; listing.py has them all.
"""
