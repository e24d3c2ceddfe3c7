//! The databases of a peer, on the same server of PostgreSQL as ours.

use uuid::Uuid;

use super::{Database, Server};

impl Database {
    /// Makes empty databases with these names, and a login that owns them. Returns the login's URL without a database.
    pub async fn add_peer(&self, names: &[&str], host: &str) -> Result<String, String> {
        let password = Uuid::new_v4();
        self.drop_peer(names).await?;
        self.psql(&format!("CREATE ROLE peer LOGIN PASSWORD '{password}'")).await?;
        for name in names {
            self.psql(&format!("CREATE DATABASE {name} OWNER peer")).await?;
        }
        Ok(format!("postgres://peer:{password}@{host}:5432"))
    }

    pub async fn drop_peer(&self, names: &[&str]) -> Result<(), String> {
        for name in names {
            self.psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        }
        self.psql("DROP ROLE IF EXISTS peer").await.map(drop)
    }

    /// All orders, and those that are neither confirmed nor rejected. This must be a database with the table `orders`.
    pub async fn orders(&self) -> Result<[i64; 2], String> {
        let open = "status NOT IN ('confirmed', 'rejected')";
        Ok([
            self.number("SELECT COUNT(*) AS n FROM orders").await?,
            self.number(&format!("SELECT COUNT(*) AS n FROM orders WHERE {open}")).await?,
        ])
    }

    /// How many charges the card network captured for the peer, or for others. This must be its database.
    pub async fn charges(&self, peer: bool) -> Result<i64, String> {
        let like = if peer { "LIKE" } else { "NOT LIKE" };
        let of = "FROM movements WHERE kind = 'capture' AND authorization";
        self.number(&format!("SELECT COUNT(*) AS n {of} {like} 'node-%'")).await
    }

    /// Deletes the peer's charges, which would be differences to our books.
    pub async fn forget_charges(&self) -> Result<(), String> {
        let Server::File(_) = self.server else { return Ok(()) };
        let delete = ["movements WHERE authorization", "authorizations WHERE key"];
        self.run(&delete.map(|rows| format!("DELETE FROM {rows} LIKE 'node-%'"))).await
    }
}
