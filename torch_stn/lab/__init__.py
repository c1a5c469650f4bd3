"""The lab: the `stn` command. Train, evaluate, report. Nothing outside this folder imports it."""
