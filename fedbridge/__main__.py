"""`python -m fedbridge`: the command line, where no script `fedbridge` is on the path."""

from fedbridge.cli import app

app(prog_name="fedbridge")
