//! The store. It guarantees:
//!
//! - What a transaction adds exists after its commit. Without a commit, nothing of it exists.
//! - A list is newest first, and its next page continues where the last one ended, whatever was added since.

use shared::db::{Db, DbError, Migrations, Row, Tx, query};
use shared::request::{Page, Paging};
use uuid::Uuid;

use crate::domain::{Name, Thing};
use crate::error::Error;

const COLUMNS: &str = "id, owner_id, name, created_at, version";

/// Clones share the database.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

impl Store {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub async fn add(&self, tx: &mut Tx, owner_id: Uuid, name: Name) -> Result<Thing, Error> {
        let new = Thing::new(owner_id, name, tx.now());
        query(format!("INSERT INTO things ({COLUMNS}) VALUES ($1, $2, $3, $4, $5)"))
            .bind(new.id)
            .bind(new.owner_id)
            .bind(new.name.as_str())
            .bind(new.created_at)
            .bind(new.version)
            .execute(tx)
            .await?;
        Ok(new)
    }

    pub async fn find(&self, id: Uuid) -> Result<Thing, Error> {
        let found = query(format!("SELECT {COLUMNS} FROM things WHERE id = $1")).bind(id);
        let row = found.fetch_optional(&self.db).await?.ok_or(Error::NotFound)?;
        Ok(read(&row)?)
    }

    /// Lists the things of `owner`, or of all owners.
    pub async fn list(&self, paging: &Paging, owner: Option<Uuid>) -> Result<Page<Thing>, DbError> {
        let rows = query(format!(
            "SELECT {COLUMNS} FROM things WHERE ($1 IS NULL OR owner_id = $1) AND ($2 IS NULL OR id < $2) \
             ORDER BY id DESC LIMIT $3"
        ))
        .bind(owner)
        .bind(paging.cursor)
        .bind(paging.fetch())
        .fetch_all(&self.db)
        .await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(paging.page(items, |item| item.id))
    }
}

fn read(row: &Row) -> Result<Thing, DbError> {
    Ok(Thing {
        id: row.get("id")?,
        owner_id: row.get("owner_id")?,
        name: row.get::<String>("name")?.try_into().map_err(invalid)?,
        created_at: row.get("created_at")?,
        version: row.get("version")?,
    })
}

fn invalid(why: &'static str) -> DbError {
    sqlx::Error::Decode(why.into()).into()
}
