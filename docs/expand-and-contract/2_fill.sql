-- Rows of version 0. It does not run any more.
UPDATE things SET title = name WHERE title IS NULL
