//! The promises of the store, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "tests")]

use shared::db::testing::urls;
use shared::db::{Db, DbConfig};
use shared::request::Paging;
use template_service::domain::Thing;
use template_service::error::Error;
use template_service::store::{Store, migrations};
use uuid::Uuid;

async fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for url in urls().await {
        stores.push(Store::new(Db::open(&DbConfig::at(&url), migrations()).await.unwrap()));
    }
    stores
}

async fn add(store: &Store, owner: Uuid) -> Thing {
    let name = "Some".to_owned().try_into().unwrap();
    store.db().transaction(async |tx| store.add(tx, owner, name).await).await.unwrap()
}

#[actix_web::test]
async fn whatever_is_committed_is_found_again_and_nothing_else() {
    for store in stores().await {
        let added = add(&store, Uuid::now_v7()).await;
        assert_eq!(store.find(added.id).await.unwrap(), added);

        let name = "Other".to_owned().try_into().unwrap();
        let failed: Result<Thing, Error> = store
            .db()
            .transaction(async |tx| {
                store.add(tx, added.owner_id, name).await?;
                Err(Error::NotFound)
            })
            .await;
        assert!(failed.is_err());
        let all = store.list(&Paging { limit: 10, cursor: None }, None).await.unwrap();
        assert_eq!(all.items, [added]);
    }
}
