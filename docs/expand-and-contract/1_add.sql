ALTER TABLE things ADD COLUMN title text
