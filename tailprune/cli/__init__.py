"""The command line: one verb a file, each reads files and writes one. Results on stdout, everything else on stderr."""
