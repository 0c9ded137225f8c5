"""Errors that are the user's to mend: one line that says what was wrong, where, and what to do."""


class UserError(Exception):
    """Bad input: a recipe, a model, a data file or a reward that cannot be used as given. Exit code 2."""


class Stopped(Exception):
    """The work was asked to stop (Ctrl-C) and has saved where it was."""
