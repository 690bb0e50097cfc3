"""Folders and files of this machine, read and written without following links."""
