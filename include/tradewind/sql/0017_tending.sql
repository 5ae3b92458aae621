-- The rules a position was opened with; NULL for positions of before, which follow their strategy version's.
ALTER TABLE positions ADD COLUMN rules jsonb;
