//! The example in docs/expand-and-contract: its migrations, and the SQL of the programs of each version.

use super::{Db, DbError, query, testing};

struct Version {
    migration: &'static str,
    writes: &'static str,
    reads: &'static str,
}

macro_rules! example {
    ($file:literal) => {
        include_str!(concat!("../../../docs/expand-and-contract/", $file))
    };
}

const SWITCHED: (&str, &str) = ("INSERT INTO things (id, title) VALUES ($1, $2)", "title");
const VERSIONS: [Version; 4] = [
    Version {
        migration: example!("0_before.sql"),
        writes: "INSERT INTO things (id, name) VALUES ($1, $2)",
        reads: "name",
    },
    Version {
        migration: example!("1_add.sql"),
        writes: "INSERT INTO things (id, name, title) VALUES ($1, $2, $2)",
        reads: "COALESCE(title, name)",
    },
    Version { migration: example!("2_fill.sql"), writes: SWITCHED.0, reads: SWITCHED.1 },
    Version { migration: example!("3_drop.sql"), writes: SWITCHED.0, reads: SWITCHED.1 },
];

impl Version {
    async fn write(&self, db: &Db, id: i64) -> Result<u64, DbError> {
        query(self.writes).bind(id).bind(format!("thing {id}")).execute(db).await
    }

    /// All there are, in order; nothing for what it cannot see.
    async fn read(&self, db: &Db) -> Vec<String> {
        let select = format!("SELECT {} AS it FROM things ORDER BY id", self.reads);
        let rows = query(select).fetch_all(db).await.unwrap();
        rows.iter().map(|row| row.get::<Option<String>>("it").unwrap().unwrap_or_default()).collect()
    }
}

#[actix_web::test]
async fn each_version_runs_beside_the_one_before_it() {
    for db in testing::databases().await {
        let mut written = 0;
        for (number, version) in VERSIONS.iter().enumerate() {
            query(version.migration).execute(&db).await.unwrap();
            let together = &VERSIONS[number.saturating_sub(1)..=number];
            for running in together.iter().chain(together) {
                running.write(&db, written).await.unwrap();
                written += 1;
                let all: Vec<_> = (0..written).map(|id| format!("thing {id}")).collect();
                for reader in together {
                    assert_eq!(reader.read(&db).await, all, "version {number}");
                }
            }
        }
    }
}

#[actix_web::test]
async fn a_change_in_fewer_versions_loses_rows_or_fails() {
    for db in testing::databases().await {
        for version in &VERSIONS[..3] {
            query(version.migration).execute(&db).await.unwrap();
        }
        // Version 0 beside version 2.
        VERSIONS[0].write(&db, 0).await.unwrap();
        assert_eq!(VERSIONS[2].read(&db).await, [""]);
        // Version 1 beside version 3.
        query(VERSIONS[3].migration).execute(&db).await.unwrap();
        assert!(VERSIONS[1].write(&db, 1).await.is_err());
    }
}
