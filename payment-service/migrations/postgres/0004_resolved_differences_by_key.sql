-- no-transaction
-- GET /admin/differences, page by page.
CREATE INDEX CONCURRENTLY differences_resolved_by_key ON differences (key, figure) WHERE resolved_at IS NOT NULL;
