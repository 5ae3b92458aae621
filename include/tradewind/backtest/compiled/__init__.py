"""The replay's loop, compiled: for runs of which only the trades and the equity are wanted, such as a study's trials.

It lives through the clean life of a bracket alone: filled whole, protected whole, stopped, taken or timed out whole.
What else can happen (a part filled, a refusal, a missing bar, a mark near a limit) it hands back: the account's last
moment without a position is where the engine and the exact rules take over, until there is none again (`run`). Numbers
that only floats know are compared with room for their error, and what is too near to be told is handed back too. So
what it says is what the replay of `chain` says; a property test holds that, trade by trade.

Nothing here is a rule of its own: the position rule (`core.position_kernels`), the book (`core.matching_arithmetic`),
room and risk of an entry (`core.gates`, `core.sizing`, `core.risk`) are the functions that serve live.
"""
