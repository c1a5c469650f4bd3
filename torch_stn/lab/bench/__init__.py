"""The benchmark: cases as data, rivals in the same run, parity before time, losses beside wins. `stn bench` drives it.

cases, rows, page and picture need no torch: a page can be made anywhere from a record.
"""
