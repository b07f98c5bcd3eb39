"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: shown without a traceback, exit code 2.

    The message says in one to three lines what was given, what is allowed, and what to do.
    """
