//! On PostgreSQL, the login of the running program uses rows and cannot change tables.

use shared::db::{Db, DbConfig, query, testing};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;
use uuid::Uuid;

use crate::harness::Replica;

/// What deploy/ gives the two logins of a database.
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");

/// A database with two logins of its own, which are dropped at the end.
struct Logins {
    admin: PgConnection,
    owner: String,
    worker: String,
    url: Url,
}

impl Logins {
    async fn make() -> Option<Self> {
        let url = Url::parse(&testing::postgres_url().await?).unwrap();
        let id = Uuid::now_v7().simple();
        let (owner, worker) = (format!("owner_{id}"), format!("worker_{id}"));
        let mut logins =
            Self { admin: PgConnection::connect(url.as_str()).await.unwrap(), owner, worker, url };
        for login in [logins.owner.clone(), logins.worker.clone()] {
            logins.run(format!("CREATE ROLE {login} LOGIN PASSWORD '{login}'")).await;
        }
        let (database, owner) = (logins.url.path()[1..].to_owned(), logins.owner.clone());
        logins.run(format!("ALTER DATABASE {database} OWNER TO {owner}")).await;
        logins.grant().await;
        Some(logins)
    }

    /// Grants the rights, as docker compose does at every start.
    async fn grant(&mut self) {
        let roles = ROLES.replace(":\"owner\"", &self.owner).replace(":\"worker\"", &self.worker);
        self.run(roles).await;
    }

    async fn run(&mut self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.admin).await.unwrap();
    }

    fn url_of(&self, login: &str) -> String {
        let mut url = self.url.clone();
        url.set_username(login).unwrap();
        url.set_password(Some(login)).unwrap();
        url.into()
    }

    fn config(&self) -> DbConfig {
        let migrations_url = Some(self.url_of(&self.owner));
        DbConfig { migrations_url, ..DbConfig::at(&self.url_of(&self.worker)) }
    }

    async fn remove(mut self) {
        let (owner, worker) = (self.owner.clone(), self.worker.clone());
        self.run(format!("REASSIGN OWNED BY {owner} TO CURRENT_USER")).await;
        self.run(format!("DROP OWNED BY {owner}; DROP OWNED BY {worker}; DROP ROLE {owner}, {worker}")).await;
    }
}

#[actix_web::test]
async fn the_login_that_works_can_neither_change_tables_nor_drop_or_disable_their_triggers() {
    let Some(logins) = Logins::make().await else { return };
    let mut replica = Replica::with(logins.config()).await;
    replica.captured().await;
    for refused in [
        "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
        "DROP TRIGGER ledger_entries_no_delete ON ledger_entries",
        "CREATE OR REPLACE FUNCTION ledger_entries_stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "TRUNCATE ledger_entries CASCADE",
        "DROP TABLE ledger_entries",
        "ALTER TABLE payments ADD COLUMN one bigint",
        "CREATE TABLE one (two bigint)",
        "SET session_replication_role = replica",
    ] {
        let error = query(refused).execute(&replica.db).await.expect_err(refused).to_string();
        assert!(error.contains("must be owner") || error.contains("permission denied"), "{refused}: {error}");
    }
    let guarded = query("DELETE FROM ledger_entries").execute(&replica.db).await.unwrap_err().to_string();
    assert!(guarded.contains("ledger entries cannot be"), "{guarded}");

    // Another replica starts: it migrates, and works.
    let mut another = Replica::with(logins.config()).await;
    another.captured().await;
    for one in [replica, another] {
        one.db.close().await;
    }
    logins.remove().await;
}

#[actix_web::test]
async fn the_login_that_works_reads_which_migrations_ran_and_writes_none() {
    let Some(mut logins) = Logins::make().await else { return };
    for _ in ["a new database", "the roles are granted again"] {
        let replica = Replica::with(logins.config()).await;
        for table in ["_sqlx_migrations", "_chassis_migrations"] {
            assert!(replica.number(&format!("SELECT COUNT(*) AS number FROM {table}")).await > 0, "{table}");
            for refused in [
                format!("UPDATE {table} SET success = FALSE"),
                format!("DELETE FROM {table}"),
                format!(
                    "INSERT INTO {table} SELECT 9999, description, now(), TRUE, checksum, 0 FROM {table} LIMIT 1"
                ),
            ] {
                let error = query(&*refused).execute(&replica.db).await.expect_err(&refused).to_string();
                assert!(error.contains("permission denied"), "{refused}: {error}");
            }
        }
        replica.db.close().await;
        logins.grant().await;
    }
    logins.remove().await;
}

#[actix_web::test]
async fn without_a_login_of_its_own_the_migration_is_refused_to_the_login_that_works() {
    let Some(logins) = Logins::make().await else { return };
    let config = DbConfig { migrations_url: None, ..logins.config() };
    let refused = Db::open(&config, payment_service::store::migrations()).await.unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "{refused}");
    logins.remove().await;
}
