-- no-transaction
-- GET /admin/messages: the sent events of one subject.
CREATE INDEX CONCURRENTLY outbox_sent_by_subject ON outbox (subject, seq) WHERE sent_at IS NOT NULL;
