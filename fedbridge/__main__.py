"""`python -m fedbridge`: the command line, where no script `fedbridge` is on the path."""

from fedbridge._cli_run import main

main()
