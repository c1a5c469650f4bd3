"""The one error that is the user's to mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: one line that names the argument or file, what came and what was wanted.

    The command line prints the line on stderr and exits with code 2; every other exception is a fault of ours.
    """


class LostProcessError(Exception):
    """Another process of the run ended, so this one cannot go on; whoever is left says so, not the first alone."""
