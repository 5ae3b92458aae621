-- An opening names changes that came before it, and never one that is still to come: that one would not shut anything.
-- The functions that open the latch cannot say otherwise; rows that were read from a backup could.
ALTER TABLE latch_history ADD CHECK (sequence > ALL (opens));
