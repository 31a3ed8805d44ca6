"""Command line: parse, call the API, show."""
