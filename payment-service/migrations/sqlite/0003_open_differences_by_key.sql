-- GET /admin/differences, page by page.
CREATE INDEX differences_open_by_key ON differences (key, figure) WHERE resolved_at IS NULL;
