"""`python -m torch_stn` is the `stn` command, also from a source tree that is not installed."""

from torch_stn.lab.cli import main

main()
