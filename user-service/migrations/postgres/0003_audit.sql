-- What admins did to other people, for ever.
CREATE TABLE audit (
    id            uuid PRIMARY KEY,
    at            timestamptz NOT NULL,
    admin_id      uuid NOT NULL,
    user_id       uuid NOT NULL,
    action        text NOT NULL,
    -- The names of the changed fields, never their values.
    fields        text NOT NULL,
    client        text NOT NULL,
    trace_id      text
);

CREATE FUNCTION is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME; END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
