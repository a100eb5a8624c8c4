"""The command line: ``minirag VERB``. Each verb is one file, imported only when it is called."""
