-- What admins did to what belongs to other people, for ever.
CREATE TABLE admin_acts (
    id            uuid PRIMARY KEY,
    at            timestamptz NOT NULL,
    admin_id      uuid NOT NULL,
    action        text NOT NULL,
    subject_id    uuid NOT NULL,
    details       jsonb NOT NULL,
    request_id    text,
    trace_id      text
);

CREATE FUNCTION admin_acts_stay() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME; END $$;
CREATE TRIGGER admin_acts_stay BEFORE UPDATE OR DELETE ON admin_acts
    FOR EACH ROW EXECUTE FUNCTION admin_acts_stay();
