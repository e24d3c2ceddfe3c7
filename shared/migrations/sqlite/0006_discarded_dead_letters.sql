-- GET /admin/messages: whether the dead letter of an event was discarded.
CREATE INDEX admin_acts_discard ON admin_acts (subject_id) WHERE action = 'dead_letter.discard';
