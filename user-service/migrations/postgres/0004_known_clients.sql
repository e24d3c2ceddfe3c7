-- From where somebody has logged in to an account. The account is the address's digest, as in login_failures.
CREATE TABLE known_clients (
    address       text NOT NULL,
    client        text NOT NULL,
    seen_at       timestamptz NOT NULL,
    PRIMARY KEY (address, client)
);
CREATE INDEX known_clients_seen ON known_clients (seen_at);
CREATE INDEX known_clients_client ON known_clients (client);
