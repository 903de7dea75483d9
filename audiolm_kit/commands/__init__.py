"""The verbs of the command line, by subject; what is slow to import is imported by the verb that needs it."""
