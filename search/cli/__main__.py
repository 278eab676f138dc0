"""`python -m search.cli` is `lostfound`."""

from search.cli import main

main()
