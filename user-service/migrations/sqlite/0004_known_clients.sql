-- From where somebody has logged in to an account. The account is the address's digest, as in login_failures.
CREATE TABLE known_clients (
    address       TEXT NOT NULL,
    client        TEXT NOT NULL,
    seen_at       TEXT NOT NULL,
    PRIMARY KEY (address, client)
) WITHOUT ROWID;
CREATE INDEX known_clients_seen ON known_clients (seen_at);
CREATE INDEX known_clients_client ON known_clients (client);
