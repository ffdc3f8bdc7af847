"""Black-box tests: the specification against the command line and the files it leaves."""
