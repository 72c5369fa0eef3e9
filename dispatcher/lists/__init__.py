"""Reads lists of messages from CSV, text and Excel files, as people make them.

`reading` opens a file of any kind, `text` and `workbook` give its records, `header` finds what its
columns are, `messages` makes a message of each record or says why not, and `rejects` writes what
was refused so that it can be corrected and loaded. `file_load` loads a list into the queue, or says
what would happen; `earlier_loads` finds what is in already. Commands and console use both.
"""
