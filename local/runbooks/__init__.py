"""The runbooks as programs: their scenarios are read from the pages, caused in the one-machine stack, and repaired."""
