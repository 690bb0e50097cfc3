"""Text that somebody else wrote, made fit for a line of a log or a message."""


def printable(text: str, most: int = 200) -> str:
    """Return the first `most` characters, with spaces for those that are no text of one line."""
    return "".join(each if each.isprintable() else " " for each in text[:most])
