-- Unused since version 2.
ALTER TABLE things DROP COLUMN name
