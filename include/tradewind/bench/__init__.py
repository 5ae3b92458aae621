"""Speed and memory, measured: one module a subject, each row a ratio or a median beside the bound it is held to.

Nothing here runs in the tests: a busy machine makes any time a lottery. `./tradewind bench` prints the table.
"""
