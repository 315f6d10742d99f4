"""The one exception that means "the user can mend this": commands print its sentence and exit with code 1."""


class UserError(ValueError):
    """Bad input. The message says what was wrong, the value found, what is allowed and what to do."""
