-- When a job last said how far it is: one that was killed says nothing any more.
ALTER TABLE jobs ADD COLUMN reported_at timestamptz;
