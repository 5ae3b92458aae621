-- What a job has done so far, where it is not cut into chunks: by series, the bars expected and done, the rows seen and new.
ALTER TABLE jobs ADD COLUMN progress jsonb;
